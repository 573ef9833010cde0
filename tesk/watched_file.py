"""A file whose content is in use: read at the start, and again within seconds of a change.

What cannot be used is logged, once, and what was read before stays in use.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

LOOK_EVERY_S: Final = 2.0
log: Final = logging.getLogger(__name__)


class WatchedFile:
    """`read` gives the content of a file, in a thread, and raises `unusable`; `use` takes the content.

    `stays`: what the log says of the content before, where that stays in use.
    """

    def __init__(
        self, path: Path, read: Callable[[Path], Any], use: Callable[[Any], None], unusable: type[Exception], stays: str
    ) -> None:
        self._path, self._read, self._use, self._unusable, self._stays = path, read, use, unusable, stays
        self._version: tuple[int, ...] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises what `read` raises."""
        await self._look()
        self._watching = asyncio.create_task(self._watch(), name=f"watch {self._path}")

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _look(self) -> None:
        """The version is looked at first: a change in between is read again."""
        version = await asyncio.to_thread(_version, self._path)
        if version is None or version != self._version:
            self._use(await asyncio.to_thread(self._read, self._path))
            self._version = version

    async def _watch(self) -> None:
        reported = ""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
                reported = ""
            except self._unusable as error:
                if str(error) != reported:
                    reported = str(error)
                    log.error("%s; %s", error, self._stays)


def _version(path: Path) -> tuple[int, ...] | None:
    """What is different once the file has been replaced or written; None where there is no file to look at."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None
