"""Times as TES shows them: RFC 3339, UTC, milliseconds."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def now() -> str:
    """The present time."""
    return _show(datetime.now(UTC))


def stamp(text: str) -> str:
    """A time as container engines write it (up to nanoseconds, any offset); for a text that is no time, now."""
    head, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    try:
        moment = datetime.fromisoformat(f"{head}{dot}{rest[: min(digits, 6)]}{rest[digits:]}")
    except ValueError:
        return now()
    return now() if moment.year < 1971 else _show(moment.astimezone(UTC))


def at(since_1970_ms: int) -> str:
    """A time in milliseconds since 1970."""
    return _show(datetime.fromtimestamp(since_1970_ms / 1000, UTC))


def steady() -> Callable[[], datetime]:
    """A clock that is right now, and from now on never jumps, as this machine's may."""
    begun, at = time.monotonic(), datetime.now(UTC)
    return lambda: at + timedelta(seconds=time.monotonic() - begun)


def _show(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
