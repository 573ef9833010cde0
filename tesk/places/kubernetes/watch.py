"""One list and watch of one kind, for the whole server: what exists now, and a call for each change.

The watch goes on from the last resourceVersion after every cut; when the API no longer knows that version (410), or
after an error, the kind is listed again and what is gone is reported as gone. So whoever listens sees every object's
latest state in the end, whatever happened on the way (Kubernetes documentation, "Efficient detection of changes").
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.keepalive import SILENCE_S
from tesk.kubernetes.objects import ListMetadata, Metadata, Status, WatchEvent
from tesk.places.kubernetes.client import Client
from tesk.retry import pauses

log = logging.getLogger(__name__)

PAGE: Final = 500
WATCH_S: Final = 290
PAUSES_S: Final = (0.05, 5.0)
STEADY_S: Final = 5.0
"""A watch that held for so long is not what the next failure is about."""
EXPIRED: Final = 410

O = TypeVar("O", bound=Any)  # noqa: E741
_event = msgspec.json.Decoder(WatchEvent).decode
_status = msgspec.json.Decoder(Status).decode


class _Bookmark(msgspec.Struct):
    metadata: Metadata


class _Page(msgspec.Struct):
    metadata: ListMetadata
    items: list[msgspec.Raw] = []


_bookmark = msgspec.json.Decoder(_Bookmark).decode
_page = msgspec.json.Decoder(_Page).decode


class Change(msgspec.Struct, frozen=True):
    """What an event means: `name` is so now (None: gone; no name: nothing changed), and the version it makes."""

    version: str
    name: str = ""
    object: Any = None


def change(line: bytes, decode: Callable[[Any], Any]) -> Change:
    """The meaning of a line of a watch. Raises ApiError for one that ends the watch."""
    event = _event(line)
    if event.type == "ERROR":
        status = _status(event.object)
        raise ApiError(status.code or EXPIRED, status.reason, status.message)
    if event.type == "BOOKMARK":
        return Change(_bookmark(event.object).metadata.resource_version)
    found = decode(event.object)
    metadata: Metadata = found.metadata
    return Change(metadata.resource_version, metadata.name, None if event.type == "DELETED" else found)


class Cache(Generic[O]):
    """What there is of a kind. `changed(name, object or None)` is called for each change, in order, and keeps of the
    object what it needs; here only names are kept, since a thousand records may be a gigabyte.

    `synced` is set when they have been listed, `tried` also when we have no right to.
    """

    def __init__(
        self, client: Client, kind: str, decode: Callable[[Any], O], selector: str,
        changed: Callable[[str, O | None], None], silence_s: float = SILENCE_S,
        pauses_s: tuple[float, float] = PAUSES_S,
    ) -> None:  # fmt: skip
        self.names: set[str] = set()
        self.trouble: str | None = f"{kind} have not been looked at yet"
        self.synced, self.tried = asyncio.Event(), asyncio.Event()
        self._client, self._kind, self._decode = client, kind, decode
        self._selector, self._changed, self._silence_s, self._pauses_s = selector, changed, silence_s, pauses_s
        self._version = ""

    async def follow(self) -> None:
        """Lists and watches for ever, whatever happens; it is the caller's to cancel."""
        waits = pauses(*self._pauses_s)
        while True:
            begun = time.monotonic()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiError as error:
                self._failed(error)
            except Exception as error:
                log.exception("watching %s failed; listing again", self._kind)
                self._version, self.trouble = "", f"watching {self._kind} failed: {error}"
            if time.monotonic() - begun > STEADY_S:
                waits = pauses(*self._pauses_s)
            await asyncio.sleep(next(waits))

    async def _watch(self) -> None:
        query = {
            "labelSelector": self._selector,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        async with contextlib.aclosing(self._client.watch(self._kind, query, self._silence_s)) as lines:
            async for line in lines:
                self.trouble = None
                if line:
                    found = change(line, self._decode)
                    self._version = found.version
                    if found.name:
                        self._set(found.name, found.object)

    async def _list(self) -> None:
        """Takes what there is as it is; every object is reported, since what a listener missed cannot be known."""
        found: dict[str, O] = {}
        query = {"labelSelector": self._selector, "limit": str(PAGE)}
        while True:
            page = _page(await self._client.find(self._kind, **query))
            for each in map(self._decode, page.items):
                found[each.metadata.name] = each
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        for name in self.names - found.keys():
            self._set(name, None)
        for name, each in found.items():
            self._set(name, each)
        self._version = page.metadata.resource_version
        self.synced.set()
        self.tried.set()

    def _set(self, name: str, found: O | None) -> None:
        if found is None:
            self.names.discard(name)
        else:
            self.names.add(name)
        self._changed(name, found)

    def _failed(self, error: ApiError) -> None:
        """A cut watch is resumed; after a refusal everything is listed anew."""
        if error.code:
            self._version = ""
        if error.code == EXPIRED or error.reason == "Cut":
            log.info("watching %s: %s", self._kind, error)
            return
        words = f"{self._kind} cannot be watched: {error}"
        if words != self.trouble:
            log.error("%s; trying again", words)
        self.trouble = words
        if error.lacks_right:
            self.tried.set()
