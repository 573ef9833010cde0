"""Options that several client commands share, and the client that they make."""

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tesk.cli.client import TesClient

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"

server_option: Final = click.option(
    "--server",
    envvar="TESK_SERVER",
    default=DEFAULT_SERVER,
    metavar="URL",
    help=f"TES server  [TESK_SERVER; default {DEFAULT_SERVER}]",
)

json_option: Final = click.option(
    "--json/--table", "as_json", default=None, help="JSON or a table; a table on a terminal, JSON in a pipe"
)


def connect(server: str) -> "TesClient":
    """A client of the server. Imported here, so that `--help` does not wait for the import."""
    from tesk.cli.client import TesClient

    return TesClient(server)


def ids_argument(function: Any) -> Any:
    return click.argument("ids", nargs=-1, required=True, metavar="ID...")(function)
