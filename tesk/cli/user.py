"""`tesk user`: changes the file of users that `tesk serve --users-file` reads; a running server sees each change."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tesk.cli import show
from tesk.cli.options import json_option
from tesk.cli.terminal import escaped

if TYPE_CHECKING:
    from tesk.server.people.users import User, Users

LEAST_CHARACTERS: Final = 8

_file: Final = click.option(
    "--users-file",
    "path",
    envvar="TESK_PEOPLE_USERS_FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="the file of users  [TESK_PEOPLE_USERS_FILE]",
)
_stdin: Final = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="read the password from stdin instead of asking for it"
)
_name: Final = click.argument("name")


@click.group("user", short_help="Change the file of users with passwords.")
def user_command() -> None:
    """Change the file of users who sign in with a name and a password.

    `tesk serve --users-file FILE` reads the file, and sees a change within seconds. It holds hashes, never a password.

    \b
    tesk user add --users-file users.toml --group lab-a alice
    tesk user list --users-file users.toml
    """


@user_command.command("add", short_help="Add a user.")
@_file
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="a group of the user; the first is the default")
@click.option("--manages", multiple=True, metavar="GROUP", help="a group whose tasks the user may cancel, too")
@click.option("--shown", default="", metavar="TEXT", help="the name that people read")
@_stdin
@_name
def add_command(
    path: Path, groups: tuple[str, ...], manages: tuple[str, ...], shown: str, from_stdin: bool, name: str
) -> None:
    """Add a user, and make the file if there is none.

    \b
    tesk user add --users-file users.toml --group lab-a --manages lab-a alice
    openssl rand -base64 15 | tee alice.txt | tesk user add --users-file users.toml --password-stdin alice
    """
    from tesk.server.people.users import User, check_name

    with _errors():
        check_name(name)
    user = User(_hash(name, from_stdin), shown, groups, manages)
    with _changing(path) as users:
        if name in users:
            raise click.ClickException(f"{path}: there is a user {name} already; `tesk user password` changes one")
        users[name] = user


@user_command.command("password", short_help="Change a user's password.")
@_file
@_stdin
@_name
def password_command(path: Path, from_stdin: bool, name: str) -> None:
    """Change a user's password. The server refuses the one before from then on.

    \b
    tesk user password --users-file users.toml alice
    """
    from msgspec.structs import replace

    password = _hash(name, from_stdin)
    with _changing(path) as users:
        users[name] = replace(_one(users, path, name), password=password)


@user_command.command("remove", short_help="Remove a user.")
@_file
@_name
def remove_command(path: Path, name: str) -> None:
    """Remove a user, who cannot sign in with the password from then on. The user's tasks stay.

    \b
    tesk user remove --users-file users.toml alice
    """
    with _changing(path) as users:
        _one(users, path, name)
        del users[name]


@user_command.command("list", short_help="List the users.")
@_file
@json_option
def list_command(path: Path, as_json: bool | None) -> None:
    """List the users and their groups: a table on a terminal, a JSON array in a pipe.

    \b
    tesk user list --users-file users.toml | jq -r '.[].name'
    """
    with _errors():
        from tesk.server.people.users import read

        users = read(path)
    rows = [
        {"name": name, "shown": user.shown, "groups": list(user.groups), "manages": list(user.manages)}
        for name, user in sorted(users.items())
    ]
    if not show.on_terminal() if as_json is None else as_json:
        show.as_json(rows)
        return
    for row in rows:
        words = [str(row["name"]), str(row["shown"]), *(f"{group}" for group in row["groups"])]
        words += [f"{group} (manages)" for group in row["manages"]]
        click.echo(escaped("  ".join(filter(None, words))))


@contextmanager
def _errors() -> Iterator[None]:
    from tesk.server.people.way import PeopleError

    try:
        yield
    except PeopleError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _changing(path: Path) -> Iterator["Users"]:
    """The users of the file; what is changed of them is written."""
    with _errors():
        from tesk.server.people.users import changing

        with changing(path) as users:
            yield users


def _one(users: "Users", path: Path, name: str) -> "User":
    if name not in users:
        raise click.ClickException(f"{path}: there is no user {name}; `tesk user list` shows them")
    return users[name]


def _hash(name: str, from_stdin: bool) -> str:
    """The hash of the password that is given. Raises ClickException for one that is too short."""
    from tesk.server.people.passwords import hashed

    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    if len(password) < LEAST_CHARACTERS:
        raise click.ClickException(f"a password has at least {LEAST_CHARACTERS} characters")
    return hashed(password)
