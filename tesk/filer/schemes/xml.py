"""XML that a server answers with. It comes from outside, so a document that defines entities is refused: they can grow
without bound, or name files."""

from xml.etree import ElementTree

from tesk.filer.errors import TransferError


def parsed(text: bytes, what: str, advice: str) -> ElementTree.Element:
    """The root of a document; `what` and `advice` are for errors. Raises TransferError."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise TransferError(f"{what} defines entities", advice)
    try:
        return ElementTree.fromstring(text.removeprefix(b"\xef\xbb\xbf"))  # noqa: S314 - there is nothing to expand
    except ElementTree.ParseError as error:
        raise TransferError(f"{what} is no XML ({error})", advice) from None
