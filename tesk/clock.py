"""Times as TES shows them: RFC 3339, UTC, milliseconds."""

from datetime import UTC, datetime


def now() -> str:
    """The present time."""
    return _show(datetime.now(UTC))


def stamp(text: str) -> str:
    """A time as the container engine writes it (up to nanoseconds, any offset); now, where it names none."""
    head, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    try:
        time = datetime.fromisoformat(f"{head}{dot}{rest[: min(digits, 6)]}{rest[digits:]}")
    except ValueError:
        return now()
    return now() if time.year < 1971 else _show(time.astimezone(UTC))


def seconds_since(text: str) -> float:
    """How long ago a time is that `now` has given; negative for one to come."""
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()


def _show(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
