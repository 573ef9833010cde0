"""Gives the output files in a task's logs the URLs that the task's document asked for (pure).

Filers report URLs without user, password and query, and places and the store keep them so: no ConfigMap and no log
holds a secret. The task's document has the whole URLs, and whoever may read the log may read the document. So an answer
shows the whole URLs again.
"""

import re
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from tesk.patterns import implied_prefix
from tesk.tes import OutputFileLog, normal
from tesk.urls import redact

_AUTHORITY_END: Final = re.compile(r"[/?#]")
_QUERY: Final = re.compile(r"[?#]")
_HAS_OUTPUTS: Final = b'"outputs":[{'


class _Output(Struct):
    url: str
    path: str
    path_prefix: str | None = None


class _Document(Struct):
    outputs: list[_Output] = []


class _RequestedUrl(NamedTuple):
    """An output's URL in parts. `shown` is the URL without `user` (with its @) and without `query` (with its ?)."""

    url: str
    shown: str
    user: str
    query: str

    def below(self, shown: str) -> str:
        """The whole URL of `shown`, which is this URL as shown or a URL below."""
        if shown == self.shown:
            return self.url
        scheme, _, rest = shown.partition("://")
        return f"{scheme}://{self.user}{rest}{self.query}"


_document: Final = msgspec.json.Decoder(_Document).decode
_logs: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_pushed: Final = msgspec.json.Decoder(list[OutputFileLog]).decode
_encode: Final = msgspec.json.Encoder().encode


def with_requested_urls(logs: bytes, document: bytes) -> bytes:
    """The logs, with the outputs' URLs as the document has them."""
    if _HAS_OUTPUTS not in logs or not (b"@" in document or b"?" in document):
        return logs
    outputs = _document(document).outputs
    if all(redact(output.url) == output.url for output in outputs):
        return logs
    requested = _by_url_and_path(outputs)
    entries = _logs(logs)
    for entry in entries:
        pushed = _pushed(entry["outputs"])
        for file in pushed:
            if found := _find(requested, file.url, file.path):
                file.url = found.below(file.url)
        entry["outputs"] = msgspec.Raw(_encode(pushed))
    return _encode(entries)


def _by_url_and_path(outputs: list[_Output]) -> dict[tuple[str, str], _RequestedUrl]:
    """Each output by its shown URL, with its path and with none: two outputs may differ in their secrets alone."""
    found: dict[tuple[str, str], _RequestedUrl] = {}
    for output in outputs:
        url, prefix = _parts(output.url), output.path_prefix
        if not prefix and (implied := implied_prefix(output.path, output.url)):
            prefix, url = implied[0], _parts(implied[1])
        shown = url.shown.rstrip("/")
        for path in (prefix, output.path):
            if path:
                found.setdefault((shown, normal(path)), url)
        found.setdefault((shown, ""), url)
    return found


def _parts(url: str) -> _RequestedUrl:
    shown = redact(url).removesuffix("?…")
    rest = url.partition("://")[2]
    user, at, _ = _AUTHORITY_END.split(rest, 1)[0].rpartition("@")
    query = _QUERY.search(url) if shown.lower().startswith(("http://", "https://")) else None
    return _RequestedUrl(url, shown, user + at, url[query.start() :] if query else "")


def _find(requested: dict[tuple[str, str], _RequestedUrl], url: str, path: str) -> _RequestedUrl | None:
    """The output that a file belongs to: the file itself, or the nearest folder above that is an output.

    A file below a folder has the same names in its URL as in its path.
    """
    folder, above = url.rstrip("/"), normal(path)
    nearest = requested.get((folder, above)) or requested.get((folder.rpartition("/")[0], above))
    fallback: _RequestedUrl | None = None
    while nearest is None and "://" in folder:
        nearest = requested.get((folder, above or "/"))
        fallback = fallback or requested.get((folder, ""))
        folder, above = folder.rpartition("/")[0], above.rpartition("/")[0]
    return nearest or fallback
