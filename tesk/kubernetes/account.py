"""The service account that the server itself runs as, by its own token.

Tasks' Jobs belong to it: when it is deleted, as by uninstalling the server, the cluster's garbage collector ends and
removes what was made for tasks. Else they would run on with nobody to hear of their ends.
"""

import base64
import binascii

import msgspec
from msgspec import Struct, field


class Account(Struct, frozen=True):
    """A ServiceAccount object."""

    name: str
    uid: str


class _Bound(Struct):
    serviceaccount: Account


class _Claims(Struct):
    kubernetes: _Bound = field(name="kubernetes.io")


def account(token: str) -> Account | None:
    """Who a token is of (Kubernetes documentation, "Managing Service Accounts", bound tokens); None if it says not."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(claims, type=_Claims).kubernetes.serviceaccount
    except (msgspec.MsgspecError, binascii.Error):
        return None
