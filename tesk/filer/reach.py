"""Where transfers may connect to: URLs come from users, and the filer stands inside the operator's network.

Names are judged by the addresses that they resolve to, and the connection is made to an address that was judged, so
that a name cannot mean one thing now and another later. What is denied is denied. Addresses where clouds hand out
credentials, and all link-local ones, are denied unless `allow` names them by address or network. Where `allow` has
entries, a host has to match one, by name or by address. A redirect of a public server leads to private addresses only
if `allow` has them.
"""

import ipaddress
import socket
from collections.abc import Sequence
from copy import copy
from typing import Final

from tesk.filer.errors import TransferError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: .169.254 of most clouds, .170.2 and .170.23 of AWS, .0.23 and .42.42 of others
        "fe80::/10",  # link-local
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure, of the machine's agent
        "fd00:ec2::254/128",  # AWS
        "fd00:ec2::23/128",  # AWS: credentials of pods
        "fd00:42::42/128",  # Scaleway
        "fd20:ce::254/128",  # Google
    )
)
_LOW_IS_IPV4: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # NAT64, of one network (RFC 8215)
        "::ffff:0:0:0/96",  # translated (RFC 2765)
    )
)
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class Places:
    """Hosts as settings name them: `data.org`, `.data.org` for all below it, `10.0.0.0/8`, `fd00::1`."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.names: set[str] = set()
        self.networks: list[Network] = []
        for entry in entries:
            text = entry.strip().lower().removeprefix("*").rstrip(".")
            try:
                self.networks.append(ipaddress.ip_network(text.strip("[]"), strict=False))
            except ValueError:
                self.names.add(text)

    def __bool__(self) -> bool:
        return bool(self.names or self.networks)

    def has(self, host: str, address: Address) -> bool:
        return self.has_name(host) or self.has_address(address)

    def has_name(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        parts = name.split(".")
        return name in self.names or any("." + ".".join(parts[n:]) in self.names for n in range(1, len(parts)))

    def has_address(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


class Reach:
    """What may be reached; open to all but the metadata addresses by default."""

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        self._allow = Places(allow)
        self._deny = Places(deny)
        self._from_public = False

    def from_public(self) -> "Reach":
        """The same, for hosts that a public server names."""
        other = copy(self)
        other._from_public = True
        return other

    def refusal(self, host: str, address: Address, *, from_public: bool = False) -> str:
        """Why `host` at `address` is not reached, in words; empty where it may be."""
        here = plain(address)
        if self._deny.has(host, here) or self._deny.has_address(address):
            return "is among the hosts that transfers must not reach (transfer_deny)"
        if any(here in network for network in METADATA) and not self._allow.has_address(here):
            return "is where a cloud hands out credentials, which tasks must not reach"
        if self._allow and not self._allow.has(host, here):
            return "is not among the hosts that transfers may reach (transfer_allow)"
        if (from_public or self._from_public) and not _is_global(here) and not self._allow.has(host, here):
            return "is a private address, to which a public server must not redirect"
        return ""

    def is_closed(self, host: str) -> bool:
        """True where the name alone tells that `host` is not reached, whatever its addresses are."""
        if self._deny.has_name(host):
            return True
        return bool(self._allow) and not self._allow.networks and not self._allow.has_name(host)

    def resolve(self, host: str, port: int, *, from_public: bool = False) -> list[str]:
        """The addresses of `host` that may be connected to. Raises TransferError when none may, OSError."""
        refused = ""
        allowed: list[str] = []
        for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            text = str(where[0])
            refusal = self.refusal(host, ipaddress.ip_address(text.partition("%")[0]), from_public=from_public)
            if not refusal:
                allowed.append(text)
            else:
                shown = host if host == text else f"{host} ({text})"
                refused = refused or f"{shown} {refusal}"
        if not allowed:
            raise TransferError(refused, "use another URL, or ask the operator", tries=0)
        return allowed

    def connect(self, host: str, port: int, timeout_s: float, *, from_public: bool = False) -> socket.socket:
        """A connection to the first of the allowed addresses that answers. Raises TransferError, OSError."""
        failure: OSError | None = None
        for address in self.resolve(host, port, from_public=from_public):
            try:
                return socket.create_connection((address, port), timeout_s)
            except OSError as error:
                failure = failure or error
        raise failure or OSError(f"{host} has no address")


def plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one (mapped, compatible, translated, 6to4, Teredo) as itself."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    low = int(address) & 0xFFFFFFFF
    if any(address in network for network in _LOW_IS_IPV4) or (address in _COMPATIBLE and low > 1):
        return ipaddress.IPv4Address(low)
    if address.teredo:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address


def _is_global(address: Address) -> bool:
    return address.is_global and not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)


def is_public(sock: socket.socket) -> bool:
    """Whether the other end of a connection is on the public Internet."""
    return _is_global(plain(ipaddress.ip_address(str(sock.getpeername()[0]).partition("%")[0])))
