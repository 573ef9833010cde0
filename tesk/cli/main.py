"""The `tesk` command: a group that imports a command only when it is called, so that each starts fast.

Wrong use ends with exit code 2 (click's own). Every other error of a user ends with one line on stderr and exit code 1.
"""

import importlib
from typing import Final

import click

import tesk
from tesk.cli.terminal import escaped

INTERRUPTED: Final = 128 + 2
COMMANDS: Final = {
    "serve": "tesk.cli.serve",
    "run": "tesk.cli.run",
    "create": "tesk.cli.tasks",
    "get": "tesk.cli.tasks",
    "list": "tesk.cli.tasks",
    "logs": "tesk.cli.tasks",
    "wait": "tesk.cli.tasks",
    "cancel": "tesk.cli.tasks",
    "token": "tesk.cli.token",
    "user": "tesk.cli.user",
    "login": "tesk.cli.login",
    "logout": "tesk.cli.login",
    "whoami": "tesk.cli.login",
    "share": "tesk.cli.share",
    "usage": "tesk.cli.usage",
    "debug": "tesk.cli.debug",
    "version": "tesk.cli.version",
}
"""The module of each command; there it is called `<name>_command`."""


class Commands(click.Group):
    """click's group, with its commands from COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Start a server, then run a task on it:
  tesk serve
  tesk run --image alpine -- echo hello
  tesk run --image alpine --input https://example.org/a.txt=/in/a.txt \\
           --output /out/n=file:///srv/shared/n -- sh -c 'wc -l </in/a.txt >/out/n'
\b
`tesk COMMAND --help` tells more. The other commands find the server by
--server or TESK_SERVER (default http://127.0.0.1:8080).""",
)
@click.version_option(tesk.__version__, message="tesk %(version)s")
def command_line() -> None:
    """Run tasks in containers behind the GA4GH Task Execution Service API (TES 1.1).

    `tesk serve` is the server; every other command is a client of it, or of any other TES server.
    """


def main() -> int:
    """Runs the command that sys.argv names; the exit code."""
    try:
        result = command_line.main(prog_name="tesk", standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        click.echo(_line(error), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _line(error: click.ClickException) -> str:
    """An error in one line: the command, what is wrong, and for wrong use where the help is."""
    message = escaped(" ".join(error.format_message().split()))
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return f"tesk: {message}"
    command = error.ctx.command_path
    return f"{command}: {message} (see {command} --help)"
