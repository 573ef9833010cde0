"""`tesk share`: lets colleagues see one's own tasks."""

from urllib.parse import urlencode

import click

from tesk.cli import show
from tesk.cli.options import connect, json_option, server_option
from tesk.cli.terminal import escaped


@click.group("share", short_help="Let colleagues see your tasks.")
def share_command() -> None:
    """Let colleagues see all of your tasks, without a right to cancel them, and take that back.

    \b
    tesk share add bob
    tesk share list
    """


@share_command.command("add", short_help="Let users see your tasks.")
@server_option
@click.argument("users", nargs=-1, required=True, metavar="USER...")
def add_command(server: str, users: tuple[str, ...]) -> None:
    """Let users see your tasks, by the names that `tesk whoami` shows them.

    \b
    tesk share add bob
    """
    client = connect(server)
    for user in users:
        client.beside_tes("POST", "shares", {"user": user})


@share_command.command("remove", short_help="Hide your tasks again.")
@server_option
@click.argument("users", nargs=-1, required=True, metavar="USER...")
def remove_command(server: str, users: tuple[str, ...]) -> None:
    """Hide your tasks from users again: at once on the server that is asked, within 10 seconds on others.

    \b
    tesk share remove bob
    """
    client = connect(server)
    for user in users:
        client.beside_tes("DELETE", f"shares?{urlencode({'user': user})}")


@share_command.command("list", short_help="List who shares with whom.")
@server_option
@json_option
def list_command(server: str, as_json: bool | None) -> None:
    """List who sees your tasks, and whose tasks you see.

    \b
    tesk share list
    """
    found = connect(server).beside_tes("GET", "shares")
    if as_json or (as_json is None and not show.on_terminal()):
        show.as_json(found)
        return
    rows = [(escaped(user), "sees your tasks") for user in found["seen_by"]]
    show.rows(("USER", ""), rows + [(escaped(user), "lets you see theirs") for user in found["sees"]])
