"""The issuers' file: which OpenID Connect providers tesk trusts, and for whom (one TOML table for each).

    [lslogin]
    issuer = "https://login.aai.lifescience-ri.eu/oidc/"
    audience = ["https://tes.example.org"]
    group_prefix = "urn:geant:lifescience-ri.eu:group:"

Most providers give an account to whoever asks for one. A table that names neither an audience nor a group would let
all of them in, so it is refused unless `anyone = true` says that this is meant.
"""

import os
import re
import ssl
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from tesk.server.people.way import IssuerLogin, PeopleError

Seconds = Annotated[float, Meta(ge=0)]
Source = Literal["", "token", "userinfo", "introspection"]


class Issuer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table. The names of its users and messages begin with `name`, the name of the table."""

    name: str = ""
    """Not a key of the table."""
    issuer: str
    """As `iss` of its tokens has it, to the last slash."""
    audience: tuple[str, ...] = ()
    """A token must be for one of these; none: it may be for anybody."""
    required_groups: tuple[str, ...] = ()
    """A user must be in one of these, named as without `group_prefix`."""
    required_scopes: tuple[str, ...] = ()
    """A token must have all of these."""
    anyone: bool = False
    """Whoever has an account at the provider may come in."""
    client_id: str = ""
    """tesk's own client, for introspection."""
    client_secret_file: str = ""
    ca_file: str = ""
    """Certificates (PEM) that vouch for the provider, beside those of the system."""
    opaque_tokens: Literal["refused", "introspection", "userinfo"] = "refused"
    """Who tells what a token says that is not a JWT. At most one issuer takes such tokens."""
    principal_claim: str = "sub"
    """The user's name at the issuer: it must never be given to another person."""
    name_claim: str = "name"
    """The name that people read."""
    groups_claim: str = ""
    """Dotted; empty: `eduperson_entitlement`, then `groups`."""
    groups_from: Source = ""
    """Empty: from the token, and from userinfo where the token has none."""
    group_prefix: str = ""
    """Groups that begin otherwise do not count; it is cut off."""
    admin_groups: tuple[str, ...] = ()
    """Groups of this issuer whose members are admins, named as without `group_prefix`."""
    default_group: str = ""
    """Of the tasks of its members, where the task names none."""
    cache_s: Seconds = 300.0
    """For how long what the provider said holds, but never beyond the token's end."""
    leeway_s: Annotated[float, Meta(ge=0, le=600)] = 30.0
    """By how much the clocks of the provider and of this machine may differ."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    """Within which the provider must have answered."""
    login_client_id: str = ""
    """The public client of `tesk login`; empty: this issuer is not for it."""
    login_scopes: tuple[str, ...] = ("openid", "profile", "offline_access")
    """What `tesk login` asks for."""
    login_resource: str = ""
    """The resource (RFC 8707) that `tesk login` asks a token for; empty: none."""

    def login(self) -> IssuerLogin | None:
        """What `tesk login` needs; None where it is not for this issuer."""
        if not self.login_client_id:
            return None
        return IssuerLogin(self.name, self.issuer, self.login_client_id, self.login_scopes, self.login_resource)

    def secret(self) -> str:
        """Read at each use, so that a new secret takes effect. Raises OSError."""
        return Path(self.client_secret_file).read_text().strip()


def read_issuers(file: Path) -> tuple[Issuer, ...]:
    """The issuers of the file. Raises PeopleError."""
    try:
        text = file.read_text()
        tables = tomllib.loads(text)
    except OSError as error:
        raise PeopleError(f"{file}: cannot be read: {error.strerror}; check people.issuers") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeopleError(f"{file}: not TOML: {error}") from None
    if not tables:
        raise PeopleError(f'{file}: no issuer; write a table [NAME] with issuer = "https://…", or unset people.issuers')
    issuers = []
    for name, table in tables.items():
        try:
            issuers.append(_issuer(name, table, file.parent))
        except ValueError as error:
            raise PeopleError(f"{_place(file, text, name)}: {error}") from None
    _refuse_twice(issuers, file, text)
    return tuple(issuers)


_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,62}")


def _issuer(name: str, table: Any, folder: Path) -> Issuer:
    """Raises ValueError with what is wrong in the table."""
    if not _NAME.fullmatch(name):
        raise ValueError("the name of a table is made of a to z, 0 to 9, - and _")
    if not isinstance(table, dict):
        raise ValueError(f"not a table; write [NAME] above {name}")
    if "name" in table:
        raise ValueError("name is not a key: the name of the table is the issuer's name")
    try:
        issuer = msgspec.convert({**table, "name": name}, Issuer)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from None
    issuer = msgspec.structs.replace(
        issuer, client_secret_file=_path(folder, issuer.client_secret_file), ca_file=_path(folder, issuer.ca_file)
    )
    _check_url(issuer.issuer)
    _check_doors(issuer)
    _check_client(issuer)
    return issuer


def _check_doors(issuer: Issuer) -> None:
    """Refuses what would let in more people than its author may have meant."""
    if issuer.opaque_tokens == "userinfo" and issuer.audience and not (issuer.required_groups or issuer.anyone):
        raise ValueError(
            'opaque_tokens = "userinfo" cannot check the audience, since userinfo does not tell for whom a token is: '
            "name required_groups too, or use introspection"
        )
    if issuer.opaque_tokens == "userinfo" and issuer.required_scopes:
        raise ValueError(
            'opaque_tokens = "userinfo" cannot check required_scopes: leave them out, or use introspection'
        )
    if not (issuer.audience or issuer.required_groups or issuer.anyone):
        raise ValueError(
            "names neither audience nor required_groups, so that everybody with an account at the provider could run "
            "tasks: name one, or write anyone = true if this is meant"
        )


def _check_client(issuer: Issuer) -> None:
    introspects = "introspection" in (issuer.opaque_tokens, issuer.groups_from)
    if introspects and not (issuer.client_id and issuer.client_secret_file):
        raise ValueError("introspection needs client_id and client_secret_file")
    if issuer.client_secret_file:
        try:
            secret = issuer.secret()
        except OSError as error:
            raise ValueError(
                f"client_secret_file {issuer.client_secret_file} cannot be read: {error.strerror}"
            ) from None
        if not secret:
            raise ValueError(f"client_secret_file {issuer.client_secret_file} is empty")
    if issuer.ca_file:
        try:
            ssl.create_default_context(cafile=issuer.ca_file)
        except OSError as error:
            raise ValueError(f"ca_file {issuer.ca_file} cannot be used: {error.strerror or error}") from None


def _refuse_twice(issuers: list[Issuer], file: Path, text: str) -> None:
    seen: dict[str, str] = {}
    opaque = ""
    for issuer in issuers:
        place = _place(file, text, issuer.name)
        if issuer.issuer in seen:
            raise PeopleError(f"{place}: [{seen[issuer.issuer]}] has the same issuer; leave one out")
        seen[issuer.issuer] = issuer.name
        if issuer.opaque_tokens == "refused":
            continue
        if opaque:
            raise PeopleError(
                f"{place}: [{opaque}] takes opaque tokens already: such a token does not tell whose it is, "
                "and must not be shown to another provider"
            )
        opaque = issuer.name


def _check_url(url: str) -> None:
    if not is_safe(url):
        raise ValueError(f"issuer {url!r} is no URL that begins with https:// (http:// is for loopback alone)")


def is_safe(url: str) -> bool:
    """Whether tokens may be sent there: by TLS, or without leaving this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return bool(host)
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False


def _place(file: Path, text: str, name: str) -> str:
    """File, line and table, as messages name them."""
    header = re.compile(rf"""\s*\[\s*(["']?){re.escape(name)}\1\s*\]""")
    lines = (n for n, line in enumerate(text.splitlines(), 1) if header.match(line))
    line = next(lines, 0)
    return f"{file}:{line}: [{name}]" if line else f"{file}: [{name}]"


def _path(folder: Path, path: str) -> str:
    """Relative to the folder of the issuers' file."""
    return os.path.abspath(folder / Path(path).expanduser()) if path else ""


def _in_words(refusal: str) -> str:
    """msgspec's "Expected `array`, got `str` - at `$.audience`" as "audience: expected array, got str"."""
    reason, _, place = refusal.replace("`", "").partition(" - at $.")
    reason = reason[:1].lower() + reason[1:]
    return f"{place}: {reason}" if place else reason
