"""`tesk debug`: what the server acts on, for somebody who looks into a wrong state."""

import asyncio
import os
from pathlib import Path

import click

from tesk.cli import show
from tesk.cli.options import connect, server_option


@click.group("debug", short_help="Look into a task's state.")
def debug_command() -> None:
    """Look into what a server acts on."""


@debug_command.command("task", short_help="Show the facts that a task's state comes from.")
@server_option
@click.option("--config", type=click.Path(path_type=Path), help="the server's TOML file of settings  [TESK_CONFIG]")
@click.argument("task_id", metavar="ID")
def task_command(server: str, config: Path | None, task_id: str) -> None:
    """Show what the server has stored of a task, what the cluster has of it, and what is made of that, as JSON.

    It is run with the server's own settings, so best where the server runs. The executors' output is part of it;
    inputs, environments and Secrets are not.

    \b
    kubectl exec deploy/tesk -- tesk debug task d1q5v0w4k8m2e
    """
    from tesk.places.base import PlaceError
    from tesk.settings.load import SettingsError, load

    try:
        settings = load({}, os.environ, config)
        if settings.engine != "kubernetes":
            raise click.ClickException("tasks run on this machine: see the task's folder below data/tasks")
        from tesk.places.kubernetes import debug

        stored = connect(server).get(task_id)
        found = asyncio.run(debug.look(settings, task_id))
    except (PlaceError, SettingsError) as error:
        raise click.ClickException(str(error)) from None
    show.as_json({"stored": {key: stored.get(key) for key in ("id", "state", "creation_time", "logs")}} | found)
