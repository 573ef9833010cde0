"""Options that several client commands share, and the client that they make."""

import os
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tesk.cli.client import TesClient

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"

_TOKEN_FILE: Final = "tesk.token_file"  # noqa: S105 - where click keeps its name
_server_option: Final = click.option(
    "--server",
    envvar="TESK_SERVER",
    default=DEFAULT_SERVER,
    metavar="URL",
    help=f"TES server  [TESK_SERVER; default {DEFAULT_SERVER}]",
)

_token_file_option: Final = click.option(
    "--token-file",
    envvar="TESK_TOKEN_FILE",
    metavar="FILE",
    expose_value=False,
    callback=lambda context, _, path: context.meta.__setitem__(_TOKEN_FILE, path),
    help="file with the API token to sign in with, which TESK_TOKEN may hold, too  [TESK_TOKEN_FILE]",
)


def server_option(command: Any) -> Any:
    """The options that say which server is called, and with which credential."""
    return _server_option(_token_file_option(command))


json_option: Final = click.option(
    "--json/--table", "as_json", default=None, help="JSON or a table; a table on a terminal, JSON in a pipe"
)


def connect(server: str) -> "TesClient":
    """A client of the server. Imported here, so that `--help` does not wait for the import."""
    from tesk.cli.client import TesClient
    from tesk.cli.credential import authorization

    token_file = click.get_current_context().meta.get(_TOKEN_FILE)
    return TesClient(server, lambda url: authorization(url, token_file, os.environ))


def ids_argument(function: Any) -> Any:
    return click.argument("ids", nargs=-1, required=True, metavar="ID...")(function)
