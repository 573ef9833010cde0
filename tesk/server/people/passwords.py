"""Passwords: argon2id hashes, made and checked a few at once, away from the event loop.

A check takes memory and some 0.05 s of a core on purpose. So checks have threads of their own, and those that wait are
bounded in number and time: signing in may become slow, everything else does not. Source: RFC 9106, OWASP's Password
Storage Cheat Sheet.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2

from tesk.server.people.way import CannotTell

AT_ONCE: Final = 2
MOST_WAITING: Final = 200
WAIT_LIMIT_S: Final = 6.0
_HASHER: Final = argon2.PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)


def hashed(password: str) -> str:
    return _HASHER.hash(password)


def is_hash(text: str) -> bool:
    try:
        argon2.extract_parameters(text)
    except argon2.exceptions.InvalidHashError:
        return False
    return True


def _is_right(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except argon2.exceptions.VerificationError:
        return False


class Checks:
    """Checks passwords in threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "passwords")
        self._waiting = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def is_right(self, hashed: str, password: str) -> bool:
        """Raises CannotTell where too many checks wait, or for too long."""
        if self._waiting >= MOST_WAITING:
            raise CannotTell("too many passwords are being checked at once; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_LIMIT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, _is_right, hashed, password)
        except TimeoutError:
            raise CannotTell(f"the password could not be checked within {WAIT_LIMIT_S:.0f} s; try again") from None
        finally:
            self._waiting -= 1
