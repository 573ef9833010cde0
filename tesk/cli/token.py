"""`tesk token`: makes, lists and revokes API tokens, which let programs call a server for days."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tesk.cli import show
from tesk.cli.options import connect, json_option, server_option
from tesk.cli.terminal import escaped
from tesk.identity import SCOPES, Scope

if TYPE_CHECKING:
    from tesk.cli.token_sources import TokenSource

_LIFE: Final = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_SECONDS: Final = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}

user_option: Final = click.option(
    "--user", metavar="USER", help="of that user, in the database of the server on this machine; for its operator"
)
config_option: Final = click.option(
    "--config", type=click.Path(path_type=Path), help="with --user: the server's TOML file of settings  [TESK_CONFIG]"
)


@click.group("token", short_help="Make, list and revoke API tokens.")
def token_command() -> None:
    """Make, list and revoke API tokens: credentials for programs, with an end.

    Users sign in to do so, over HTTP. The operator of a server does so for any user with --user, where the server's own
    settings and database are; the server may run meanwhile.
    """


def _scopes(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[Scope, ...]:
    asked = {scope.strip() for text in given for scope in text.split(",")}
    if unknown := asked - set(SCOPES):
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is none of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if not asked or scope in asked)


def _seconds(context: click.Context, parameter: click.Parameter, given: str | None) -> int | None:
    if given is None:
        return None
    match = _LIFE.fullmatch(given)
    if match is None:
        raise click.BadParameter("write a number of minutes, hours, days or weeks, such as 30d or 12h")
    return int(match[1]) * _SECONDS[match[2]]


@token_command.command("create", short_help="Make a token, and print it once.")
@server_option
@click.option("--name", required=True, help="what it is for")
@click.option("--scope", multiple=True, callback=_scopes, metavar="SCOPE,…", help="of read, submit, cancel; else all")
@click.option("--expires", callback=_seconds, metavar="TIME", help="from now, as 12h, 30d, 8w; else 90 days")
@user_option
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="with --user: a group of that user")
@config_option
@click.option("--json", "as_json", is_flag=True, help="print what is known of the token, as JSON")
def create_command(
    server: str,
    name: str,
    scope: tuple[Scope, ...],
    expires: int | None,
    user: str | None,
    groups: tuple[str, ...],
    config: Path | None,
    as_json: bool,
) -> None:
    """Make an API token. Its text is on stdout, and nowhere else: the server keeps a digest alone.

    \b
    export TESK_TOKEN=$(tesk token create --name laptop)
    tesk token create --name nightly --scope read,submit --expires 30d
    kubectl exec deploy/tesk -- tesk token create --user alice --name first
    """
    _check_user(user, "", groups)
    made = _source(server, user, config, groups).create(name, scope, expires)
    if as_json:
        show.as_json(made)
        return
    click.echo(escaped(made["token"]))
    facts = f"{made['id']} of {made['user']}, for {', '.join(made['scopes'])}, until {made['expires']}"
    click.echo(escaped(f"token {facts}; its text is shown this once"), err=True)


@token_command.command("list", short_help="List tokens, newest first.")
@server_option
@json_option
@user_option
@click.option("--everybody", is_flag=True, help="as --user, but of all users")
@config_option
def list_command(server: str, as_json: bool | None, user: str | None, everybody: bool, config: Path | None) -> None:
    """List API tokens, newest first, without their texts; those that ended stay in the list for a month.

    \b
    tesk token list
    tesk token list --user alice
    """
    _check_user(user, "--everybody and " if everybody else "")
    found = _source(server, user, config, everybody=everybody).list()
    if as_json or (as_json is None and not show.on_terminal()):
        show.as_json_array(found)
        return
    headings = ("ID", "USER", "NAME", "SCOPES", "MADE", "LAST USED", "ENDS")
    show.rows(headings, [_row(token) for token in found])


@token_command.command("revoke", short_help="End tokens at once.")
@server_option
@user_option
@click.option("--all", "is_all", is_flag=True, help="all tokens of the user")
@config_option
@click.argument("ids", nargs=-1, metavar="[ID...]")
def revoke_command(server: str, user: str | None, is_all: bool, config: Path | None, ids: tuple[str, ...]) -> None:
    """End API tokens: at once on the server that is asked, within 10 seconds on others and with --user.

    \b
    tesk token revoke 3f9c0a51d2e7
    tesk token revoke --all
    tesk token revoke --user alice --all
    """
    if is_all == bool(ids):
        raise click.UsageError("name the tokens by their ids, or give --all")
    _check_user(user, "")
    source = _source(server, user, config)
    for token_id in ids:
        if not re.fullmatch("[A-Za-z0-9_-]+", token_id):
            raise click.UsageError(f"{escaped(token_id)!r} is not the id of a token; see tesk token list")
    alive = [token["id"] for token in source.list() if "revoked" not in token] if is_all else ids
    for token_id in alive:
        source.revoke(token_id)


def _source(
    server: str, user: str | None, config: Path | None, groups: tuple[str, ...] = (), *, everybody: bool = False
) -> "TokenSource":
    """Imported here, so that `--help` does not wait for the import."""
    from tesk.cli.token_sources import InDatabase, OverHttp

    if user is None and not everybody:
        return OverHttp(connect(server))
    return InDatabase(config, user, groups)


def _check_user(user: str | None, together: str, groups: tuple[str, ...] = ()) -> None:
    if user is None and groups:
        raise click.UsageError("--group is for --user: the groups of a user who signs in are known")
    if user is not None and together:
        raise click.UsageError(f"{together}--user are not for each other")
    if user is not None and (not user.isprintable() or not user or " " in user or len(user) > 300):
        raise click.UsageError(f"{user[:100]!r} is no name of a user")


def _row(token: dict[str, Any]) -> tuple[str, ...]:
    ends = f"revoked {_minute(token['revoked'])}" if "revoked" in token else _minute(token["expires"])
    used = _minute(token["last_used"]) if "last_used" in token else "never"
    scopes = ",".join(token["scopes"])
    return (token["id"], token["user"], token["name"], scopes, _minute(token["made"]), used, ends)


def _minute(time: str) -> str:
    return time.replace("T", " ")[:16]
