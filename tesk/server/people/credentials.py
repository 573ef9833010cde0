"""Reads what a request shows of its caller: Authorization, X-API-Key, the parameter api_key, a proxy's headers (pure).

Several may come with one request: Nextflow sends whatever it has. `None:None` and an empty pair are what py-tes 0.4.2
sends when nothing is set, and mean that nobody signs in. What a proxy says counts only from the proxy's own address.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from tesk.server.exchange import Call, Refusal
from tesk.server.people.way import Address, CallerCredential

Networks = Sequence[IPv4Network | IPv6Network]
_FORWARDED_USER: Final = b"x-forwarded-user"
_FORWARDED_GROUPS: Final = b"x-forwarded-groups"
_FORWARDED_FOR: Final = b"x-forwarded-for"
_QUERY_KEY: Final = re.compile(rb"(?:^|&)api_key=([^&]*)")
_NOBODY: Final = frozenset({("", ""), ("None", "None")})


class Shown(NamedTuple):
    """What a request shows, as it was sent. All parts are empty where nobody signs in."""

    authorization: bytes = b""
    key: bytes = b""
    query_key: bytes = b""
    user: bytes = b""
    groups: bytes = b""


NOTHING: Final = Shown()


def shown(call: Call, *, is_proxy: bool) -> Shown:
    """`is_proxy`: the request comes from a proxy whose word counts. Raises Refusal (400)."""
    headers = call.headers
    query = _QUERY_KEY.search(call.query) if b"api_key=" in call.query else None
    user = groups = b""
    if is_proxy and _FORWARDED_USER in headers:
        user, groups = headers[_FORWARDED_USER], headers.get(_FORWARDED_GROUPS, b"")
        for name in (_FORWARDED_USER, _FORWARDED_GROUPS):
            if sum(header[0] == name for header in call.scope["headers"]) > 1:
                raise Refusal(400, "the proxy lets the caller's own header through beside its own", name.decode())
    return Shown(
        headers.get(b"authorization", b""), headers.get(b"x-api-key", b""), query[1] if query else b"", user, groups
    )


def credentials(shown: Shown, address: Address | None) -> list[CallerCredential]:
    """The credentials in the order in which they count. Raises Refusal (400) for what is no UTF-8 or no base64."""
    found: list[CallerCredential] = []
    try:
        if shown.user:
            groups = tuple(name.strip() for name in shown.groups.decode().split(",") if name.strip())
            found.append(CallerCredential("forwarded", shown.user.decode(), "", address, groups))
        scheme, _, text = shown.authorization.strip().partition(b" ")
        if scheme.lower() == b"basic":
            user, _, password = b64decode(text.strip(), validate=True).decode().partition(":")
            if (user, password) not in _NOBODY:
                found.append(CallerCredential("basic", user, password, address))
        elif scheme.lower() == b"bearer" and text.strip():
            found.append(CallerCredential("bearer", "", text.strip().decode(), address))
        if shown.key:
            found.append(CallerCredential("key", "", shown.key.decode(), address))
        if shown.query_key:
            key = unquote_to_bytes(shown.query_key.replace(b"+", b" ")).decode()
            found.append(CallerCredential("key", "", key, address))
    except (binascii.Error, UnicodeDecodeError):
        raise Refusal(400, "the credential is not UTF-8, or not base64 where Basic needs it") from None
    return found


def address_of(host: str, headers: Mapping[bytes, bytes], *, is_proxy: bool) -> Address | None:
    """Where the caller is: behind a proxy whose word counts, the address that the proxy itself saw."""
    if is_proxy and _FORWARDED_FOR in headers:
        host = headers[_FORWARDED_FOR].decode("latin-1").rpartition(",")[2].strip()
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_within(address: Address | None, networks: Networks) -> bool:
    """Whether one of the networks has the address; an IPv4 address may come as one of IPv6."""
    if address is None:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in network for network in networks)
