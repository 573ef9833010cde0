"""The Authorization header of HTTP requests: from a login or token of the credentials, else from netrc.

A user in the URL wins. The header is for the URL's own host only: a redirect to another host does not get it.
"""

import base64
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tesk.filer.credentials import Credentials, login
from tesk.filer.errors import TransferError


def headers_from(credentials: Credentials) -> Callable[[str], Mapping[str, str]]:
    """The function that gives the headers for a URL. It raises TransferError."""

    def headers(url: str) -> Mapping[str, str]:
        parts = urlsplit(url)
        if parts.username is not None:
            return {}
        table = credentials.of(url)
        if token := table.read("token").strip():
            if not token.isascii() or not token.isprintable():
                raise TransferError(f"the token in {table.file} cannot be sent", "check the credentials")
            return {"Authorization": f"Bearer {token}"}
        user, password = login(table, parts.hostname or "")
        if not user:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    return headers
