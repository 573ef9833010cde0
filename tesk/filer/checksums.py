"""Checksums of whole files, as stores tell them: computed here again, since a size alone proves little.

A file is read back from the page cache once it is complete, for parts arrive in any order. What cannot be computed
here is not compared.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from tesk.filer.errors import Damaged

BLOCK: Final = 1024 * 1024


class Checksum(NamedTuple):
    """`algorithm` is a name of HASHES, or unknown here; the digest of a CRC has its most significant byte first."""

    algorithm: str
    digest: bytes


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Crc32c:
    def __init__(self) -> None:
        import google_crc32c  # only what comes from Google Cloud Storage needs it

        self._extend: Callable[[int, bytes], int] = google_crc32c.extend
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._value = self._extend(self._value, bytes(data))

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


HASHES: Final[dict[str, Callable[[], "_Crc32 | _Crc32c | hashlib._Hash"]]] = {
    "crc32c": _Crc32c,
    "crc32": _Crc32,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}


def compute(fd: int, size: int, algorithm: str, begin: int = 0) -> bytes:
    """The digest of `size` bytes of a file, from `begin` on. Raises OSError."""
    state = HASHES[algorithm]()
    buffer = memoryview(bytearray(min(BLOCK, size)))
    position = 0
    while position < size and (n := os.preadv(fd, [buffer[: size - position]], begin + position)):
        state.update(buffer[:n])
        position += n
    return state.digest()


def verify(fd: int, size: int, told: Iterable[Checksum], what: str) -> None:
    """Compares a file with one of the checksums that were told of it: the cheapest that can be computed.

    `what` begins the sentence of the error, as in "the bytes that arrived". Raises Damaged.
    """
    known = [checksum for checksum in told if checksum.algorithm in HASHES]
    for checksum in sorted(known, key=lambda each: list(HASHES).index(each.algorithm))[:1]:
        found = compute(fd, size, checksum.algorithm)
        if found != checksum.digest:
            raise Damaged(
                f"{what} have the {checksum.algorithm} {found.hex()}, the store says {checksum.digest.hex()}",
                "check the store: the file or its checksum is damaged",
                passing=True,
            )
