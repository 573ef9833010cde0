"""What images have where tasks keep their files: each is asked once, by the shim in a container of its own.

The answers are remembered by the image's id, which stands for its files. Of what is absent the topmost directory is
enough: whatever an engine calls its folders below, nothing of the image is there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msgspec import Struct, field

from tesk.layout import Answers, to_look_at, ways

MOST_IMAGES: Final = 1000
MOST_ANSWERS: Final = 10_000
AT_ONCE: Final = 4
Ask = Callable[[Sequence[str]], Awaitable[Answers]]


class _Image(Struct):
    """`answers`: what is known of it. `turns`: of many tasks that begin at once a few find out for all."""

    answers: dict[str, int] = {}
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def known(self, asked: Sequence[str]) -> dict[str, int]:
        return {path: self.answers[path] for path in to_look_at(asked) if path in self.answers}

    def remember(self, found: Answers) -> None:
        if len(self.answers) > MOST_ANSWERS:
            self.answers.clear()
        for path, answer in found.items():
            if path == "/" or found.get(path.rpartition("/")[0] or "/"):
                self.answers[path] = answer


class Looks:
    """What has been learnt of images since the server's start."""

    def __init__(self) -> None:
        self._images: dict[str, _Image] = {}
        self._ids: dict[str, str] = {}

    def name(self, name: str, image_id: str) -> None:
        """Remembers which image the name means now."""
        self._ids[name] = image_id
        if len(self._ids) > MOST_IMAGES:
            del self._ids[next(iter(self._ids))]

    def last_id(self, name: str, asked: Sequence[str]) -> str:
        """Which image the name meant, if it is known what that one has at these directories; else empty."""
        image_id = self._ids.get(name, "")
        image = self._images.get(image_id)
        return "" if image is None or _unknown(asked, image.known(asked)) else image_id

    async def at(self, image_id: str, asked: Sequence[str], ask: Ask) -> Answers:
        """What the image has at these directories and above them; `ask` finds out about those that are not known."""
        image = self._images.setdefault(image_id, _Image())
        if len(self._images) > MOST_IMAGES:
            del self._images[next(iter(self._images))]
        known = image.known(asked)
        if _unknown(asked, known):
            async with image.turns:
                known = image.known(asked)
                if unknown := _unknown(asked, known):
                    found = await ask(unknown)
                    image.remember(found)
                    known |= found
        return known


def _unknown(asked: Sequence[str], known: Answers) -> list[str]:
    return [directory for directory in asked if not _is_known(directory, known)]


def _is_known(directory: str, known: Answers) -> bool:
    answers = [known.get(path) for path in ways(directory)]
    return None not in answers[: answers.index(0) + 1 if 0 in answers else len(answers)]
