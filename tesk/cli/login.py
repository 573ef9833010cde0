"""`tesk login`, `tesk logout`, `tesk whoami`: signing in to a server by the provider that it trusts."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from tesk.cli import show
from tesk.cli.options import connect, json_option, server_option
from tesk.cli.terminal import escaped

if TYPE_CHECKING:
    from tesk.cli.logins import KeptLogin
    from tesk.cli.provider import Document

DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_S: Final = 5.0
"""By which the provider wants the pause longer each time that it says slow_down (RFC 8628 §3.5)."""
LONGEST_S: Final = 1800.0

url_argument: Final = click.argument("url", required=False)


@click.command("login", short_help="Sign in to a server.")
@server_option
@click.option("--issuer", metavar="NAME", help="which of the server's issuers; needed where it has several")
@click.option("--browser", is_flag=True, help="open a browser on this machine, instead of showing a code to enter")
@url_argument
def login_command(server: str, url: str | None, issuer: str | None, browser: bool) -> None:
    """Sign in to the server at URL (else --server) by the provider that it trusts; other commands then use the token.

    The provider shows a page, on any device, where you sign in and enter a code. The token stays in your own folder
    (~/.config/tesk/logins) and is renewed as long as the provider allows.

    \b
    tesk login https://tes.example.org
    tesk login --browser
    """
    from tesk.cli.client import TesClient
    from tesk.cli.logins import KeptLogin, keep, server_of
    from tesk.cli.provider import IssuedTokens, ProviderError, discovered

    server = url or server
    client = TesClient(server)
    if not (client.shown.startswith("https://") or client.is_here):
        click.echo(f"{escaped(client.shown)} is not encrypted: whoever is on the way can read your token", err=True)
    offered = _chosen(client.beside_tes("GET", "sign-in"), issuer, client.shown)
    scope, resource = " ".join(offered["scopes"]), str(offered["resource"])
    try:
        metadata = discovered(str(offered["issuer"]))
        if browser or not metadata.get("device_authorization_endpoint"):
            from tesk.cli.browser import by_browser

            answer = by_browser(metadata, offered["client_id"], scope, resource, _say)
        else:
            answer = _by_code(metadata, offered["client_id"], scope, resource)
        login = KeptLogin(
            server=server_of(client.shown),
            issuer=str(offered["issuer"]),
            client_id=str(offered["client_id"]),
            resource=resource,
            token_endpoint=str(metadata["token_endpoint"]),
            revocation_endpoint=str(metadata.get("revocation_endpoint") or ""),
            access_token="",
            refresh_token="",
            ends=0.0,
        ).renewed(IssuedTokens.of(answer))
    except (ProviderError, KeyError) as error:
        raise click.ClickException(f"the provider {offered['issuer']}: {error}") from None
    who = TesClient(server, lambda _: f"Bearer {login.access_token}").beside_tes("GET", "whoami")
    keep(login)
    click.echo(f"signed in to {escaped(login.server)} as {escaped(who['user'])}", err=True)


@click.command("logout", short_help="Sign out of a server.")
@server_option
@url_argument
def logout_command(server: str, url: str | None) -> None:
    """Forget the token for the server at URL (else --server), and have the provider revoke it.

    \b
    tesk logout https://tes.example.org
    """
    from tesk.cli.client import TesClient
    from tesk.cli.logins import forget, read, server_of

    name = server_of(TesClient(url or server).shown)
    login = read(name)
    if login is None:
        click.echo(f"nobody is signed in to {escaped(name)}", err=True)
        return
    forget(name)
    _revoke(login)
    click.echo(f"signed out of {escaped(name)}", err=True)


@click.command("whoami", short_help="Show whom a server takes you for, and what you may use there.")
@server_option
@json_option
def whoami_command(server: str, as_json: bool | None) -> None:
    """Show whom the server takes you for and what you may use: in words on a terminal, as JSON in a pipe.

    \b
    tesk whoami
    tesk whoami --json | jq -r '.groups[]'
    """
    client = connect(server)
    who = client.beside_tes("GET", "whoami")
    who["capabilities"] = may_use = client.beside_tes("GET", "capabilities")
    if not show.on_terminal() if as_json is None else as_json:
        show.as_json(who)
        return
    if not who.get("user"):
        click.echo("this server asks nobody to sign in")
    rows = _person(who) if who.get("user") else {}
    rows |= {
        "storage": ", ".join(may_use["storage"]),
        "volumes": ", ".join(f"{each['name']} at {each['path']}" for each in may_use["volumes"]),
        "images": ", ".join(may_use["images"]) + (", each by its digest" if may_use["digests_only"] else ""),
    }
    for name, value in rows.items():
        if value:
            click.echo(f"{name:8} {escaped(value)}")


def _person(who: "Document") -> dict[str, str]:
    return {
        "user": who["user"],
        "name": who.get("shown") or "",
        "groups": ", ".join(who.get("groups", ())),
        "manages": ", ".join(who.get("manages", ())),
        "admin": "yes" if who.get("is_admin") else "no",
        "by": who.get("way") or "",
        "may": ", ".join(who.get("scopes", ())),
    }


def _chosen(offered: "Document", name: str | None, server: str) -> "Document":
    """The issuer to sign in by."""
    issuers: list[Any] = offered.get("issuers") or []
    if not issuers:
        ways = ", ".join(offered.get("ways") or ()) or "none, nobody has to sign in"
        raise click.ClickException(f"{server} has no issuer that `tesk login` can use (ways in: {ways})")
    found = [each for each in issuers if name in (None, each["name"])]
    if len(found) != 1:
        known = ", ".join(each["name"] for each in issuers)
        raise click.UsageError(f"--issuer is one of {known}")
    chosen: Document = found[0]
    return chosen


def _by_code(metadata: "Document", client_id: str, scope: str, resource: str) -> "Document":
    """The provider's answer with the tokens, once the user has entered the code somewhere (RFC 8628)."""
    from tesk.cli.provider import ProviderAwayError, ProviderError, post

    target = {"resource": resource} if resource else {}
    asked = post(str(metadata["device_authorization_endpoint"]), {"client_id": client_id, "scope": scope} | target)
    _say(str(asked.get("verification_uri_complete") or asked["verification_uri"]), str(asked["user_code"]))
    form = {"grant_type": DEVICE, "device_code": str(asked["device_code"]), "client_id": client_id} | target
    pause = max(1.0, float(asked.get("interval", SLOWER_S)))
    until = time.monotonic() + min(LONGEST_S, float(asked.get("expires_in", LONGEST_S)))
    while time.monotonic() < until:
        time.sleep(pause)
        try:
            return post(str(metadata["token_endpoint"]), form)
        except ProviderAwayError:
            pause += SLOWER_S
        except ProviderError as error:
            if error.code == "slow_down":
                pause += SLOWER_S
            elif error.code != "authorization_pending":
                raise
    raise ProviderError("the code was not entered in time")


def _say(url: str, code: str = "") -> None:
    click.echo(f"open {escaped(url)}" + (f" and enter {escaped(code)}" if code else ""), err=True)


def _revoke(login: "KeptLogin") -> None:
    """Asks the provider to take the tokens back; what it cannot do is said, and the rest is done."""
    from tesk.cli.provider import ProviderError, post

    if not login.revocation_endpoint:
        return
    token = login.refresh_token or login.access_token
    try:
        post(login.revocation_endpoint, {"token": token, "client_id": login.client_id}, has_answer=False)
    except ProviderError as error:
        click.echo(f"the provider {escaped(login.issuer)} did not revoke the token: {escaped(error)}", err=True)
