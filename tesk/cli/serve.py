"""`tesk serve`: its flags are made from the table of settings, so that every setting has a flag.

The values stay text until `load`, which alone chooses between flag, environment, file and default.
"""

import os
from pathlib import Path
from typing import Any

import click

from tesk.settings import TABLE, Setting
from tesk.settings.load import SettingsError, load


def _flag(setting: Setting) -> click.Option:
    help_text = f"{setting.meaning}  [{setting.environment}]"
    if setting.group.engine:
        help_text += f"  [engine {setting.group.engine} alone]"
    metavar = "|".join(setting.choices) or {int: "N", float: "N", tuple: "TEXT"}.get(type(setting.default), "TEXT")
    default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
    if default not in ("", ()):
        help_text += f"  [default: {default}]"
    return click.Option([setting.flag, setting.name], multiple=setting.is_list, metavar=metavar, help=help_text)


def _run(config: Path | None, **flags: Any) -> int | None:
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    warnings: list[str] = []
    try:
        settings = load(given, os.environ, config, warnings.append)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    from tesk.server.run import serve

    serve(settings, warnings)
    return None


serve_command = click.Command(
    "serve",
    callback=_run,
    params=[
        click.Option(["--config"], type=click.Path(path_type=Path), help="TOML file of settings  [TESK_CONFIG]"),
        *map(_flag, TABLE),
    ],
    short_help="Run the server.",
    help="""Run the TES server until it gets TERM or INT.

    A setting comes from its flag, else from its TESK_... variable, else from the TOML file, else from its default.
    Without any, the server listens on loopback, keeps its tasks in a SQLite file below --data, and runs them on this
    machine's Docker or Podman.

    \b
    tesk serve
    tesk serve --port 9000 --data /var/lib/tesk --file-root /srv/shared
    tesk serve --database-url postgresql://tesk@db.example.org/tesk
    """,
)
