"""XML that a server answers with, which may be anything: read piece by piece, entry by entry, within bounds.

A document with a DTD is refused by the parser itself, whatever its encoding: entities can grow without bound, or name
files.
"""

from collections.abc import Callable
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tesk.filer import bounds
from tesk.filer.errors import TransferError

PIECE: Final = 64 * 1024
"""The parser looks for errors of ours after each piece."""


def parsed(
    text: bytes, what: str, advice: str, entry: str = "", take: Callable[[Element], None] = lambda _: None
) -> Element:
    """The root of a document; `what` and `advice` are for errors. Raises TransferError.

    Elements whose local name is `entry` go to `take`, one by one, and are not in the document afterwards.
    """
    parser = ElementTree.XMLParser(target=_Tree(what, advice, entry, take))  # noqa: S314 - without a DTD, see below
    try:
        for begin in range(0, len(text), PIECE):
            parser.feed(text[begin : begin + PIECE])
        root: Element = parser.close()
    except ElementTree.ParseError as error:
        raise TransferError(f"{what} is no XML ({error})", advice) from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not have, or not for XML
        raise TransferError(f"{what} is no XML ({type(error).__name__})", advice) from None
    return root


class _Tree(ElementTree.TreeBuilder):
    """Builds a document without its entries, and counts what it holds."""

    def __init__(self, what: str, advice: str, entry: str, take: Callable[[Element], None]) -> None:
        super().__init__()
        self._what, self._advice = what, advice
        self._entry, self._take = entry, take
        self._open: list[tuple[Element, int]] = []
        self._held = 0

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        raise TransferError(f"{self._what} has a DTD, which defines entities", self._advice)

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        if len(self._open) >= bounds.MAX_XML_DEPTH:
            raise TransferError(f"{self._what} is nested deeper than {bounds.MAX_XML_DEPTH} elements", self._advice)
        if self._held >= bounds.MAX_XML_ELEMENTS:
            raise TransferError(f"{self._what} has more than {bounds.MAX_XML_ELEMENTS:,} elements", self._advice)
        element = super().start(tag, attrs)
        self._open.append((element, self._held))
        self._held += 1
        return element

    def end(self, tag: str) -> Element:
        element = super().end(tag)
        _, held_before = self._open.pop()
        if tag.rpartition("}")[2] == self._entry and self._open:
            self._take(element)
            del self._open[-1][0][-1]
            self._held = held_before
        return element
