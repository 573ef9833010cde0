"""The URLs of what a task pushed, as they were asked for (pure).

Filers report, and engines and the store keep, URLs without user, password and query: a ConfigMap or a log holds no
secret. The task's document has them, and whoever reads the log reads that too. So they are put back on the way out.
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
_HELD: Final = b'"outputs":[{'


class _Output(Struct):
    url: str
    path: str
    path_prefix: str | None = None


class _Document(Struct):
    outputs: list[_Output] = []


class _Asked(NamedTuple):
    """An output's URL in parts: `shown` is the whole without `user` (with its @) and `query` (with its ?)."""

    url: str
    shown: str
    user: str
    query: str

    def below(self, shown: str) -> str:
        """The URL that is shown as `shown`, which is this one's or lies below it."""
        if shown == self.shown:
            return self.url
        scheme, _, rest = shown.partition("://")
        return f"{scheme}://{self.user}{rest}{self.query}"


_document: Final = msgspec.json.Decoder(_Document).decode
_logs: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_pushed: Final = msgspec.json.Decoder(list[OutputFileLog]).decode
_encode: Final = msgspec.json.Encoder().encode


def as_asked(logs: bytes, document: bytes) -> bytes:
    """The task's logs with the URLs of their outputs as its document has them."""
    if _HELD not in logs or not (b"@" in document or b"?" in document):
        return logs
    outputs = _document(document).outputs
    if all(redact(output.url) == output.url for output in outputs):
        return logs
    asked = _by_place(outputs)
    entries = _logs(logs)
    for entry in entries:
        pushed = _pushed(entry["outputs"])
        for file in pushed:
            if found := _find(asked, file.url, file.path):
                file.url = found.below(file.url)
        entry["outputs"] = msgspec.Raw(_encode(pushed))
    return _encode(entries)


def _by_place(outputs: list[_Output]) -> dict[tuple[str, str], _Asked]:
    """Each output by its URL as shown, with its path and with none: two may differ in nothing but their secrets."""
    found: dict[tuple[str, str], _Asked] = {}
    for output in outputs:
        asked, prefix = _parts(output.url), output.path_prefix
        if not prefix and (implied := implied_prefix(output.path, output.url)):
            prefix, asked = implied[0], _parts(implied[1])
        place = asked.shown.rstrip("/")
        for path in (prefix, output.path):
            if path:
                found.setdefault((place, normal(path)), asked)
        found.setdefault((place, ""), asked)
    return found


def _parts(url: str) -> _Asked:
    shown = redact(url).removesuffix("?…")
    rest = url.partition("://")[2]
    user, at, _ = _AUTHORITY_END.split(rest, 1)[0].rpartition("@")
    query = _QUERY.search(url) if shown.lower().startswith(("http://", "https://")) else None
    return _Asked(url, shown, user + at, url[query.start() :] if query else "")


def _find(asked: dict[tuple[str, str], _Asked], url: str, path: str) -> _Asked | None:
    """The output that a file belongs to: itself, the folder above that keeps its name, or one further up.

    What lies below a folder has the same names in its URL as in its path.
    """
    place, above = url.rstrip("/"), normal(path)
    nearest = asked.get((place, above)) or asked.get((place.rpartition("/")[0], above))
    fallback: _Asked | None = None
    while nearest is None and "://" in place:
        nearest = asked.get((place, above or "/"))
        fallback = fallback or asked.get((place, ""))
        place, above = place.rpartition("/")[0], above.rpartition("/")[0]
    return nearest or fallback
