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
Buffer = bytes | bytearray | memoryview


class Checksum(NamedTuple):
    """`algorithm` is a name of HASHES, or unknown here; the digest of a CRC has its most significant byte first."""

    algorithm: str
    digest: bytes


class _Crc:
    """`extend` gives the checksum of what there is and of what follows it."""

    def __init__(self, extend: Callable[[Buffer, int], int], n_bytes: int) -> None:
        self._extend, self._n_bytes = extend, n_bytes
        self._value = 0

    def update(self, data: Buffer) -> None:
        self._value = self._extend(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._n_bytes, "big")


def _crc32c() -> _Crc:
    from awscrt.checksums import crc32c  # type: ignore[import-untyped]  # a library of 12 MB, for what comes from Google

    return _Crc(crc32c, 4)


def _crc64nvme() -> _Crc:
    from awscrt.checksums import crc64nvme  # the same, for what S3 keeps of objects that came without a checksum

    return _Crc(crc64nvme, 8)


HASHES: Final[dict[str, Callable[[], "_Crc | hashlib._Hash"]]] = {
    "crc64nvme": _crc64nvme,
    "crc32c": _crc32c,
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}
"""The cheapest first."""


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
