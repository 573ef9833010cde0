"""A line for each figure: name, value, ratio to what it is compared with, limit, and whether it holds."""

import sys
from collections.abc import Callable, Sequence
from statistics import median

HEAD = ("figure", "value", "ratio", "limit", "")
LINE = "{:<90} {:>14} {:>8} {:>8}  {}"


class Figures:
    """Prints each figure when it is known, and remembers which fell short."""

    def __init__(self) -> None:
        self.short: list[str] = []
        print(LINE.format(*HEAD), flush=True)

    def at_least(self, name: str, value: str, ratio: float, limit: float | None) -> None:
        holds = limit is None or ratio >= limit
        self._print(name, value, f"{ratio:.2f}", "" if limit is None else f">= {limit:g}", holds)

    def at_most(self, name: str, value: str, ratio: float, limit: float | None) -> None:
        holds = limit is None or ratio <= limit
        self._print(name, value, f"{ratio:.2f}", "" if limit is None else f"<= {limit:g}", holds)

    def memory_at_most(self, name: str, mib: float, limit_mib: float) -> None:
        """The one figure that means the same on every machine by itself."""
        self._print(name, f"{mib:.0f} MiB", "", f"<= {limit_mib:g}", mib <= limit_mib)

    def plain(self, name: str, value: str) -> None:
        self._print(name, value, "", "", True)

    def _print(self, name: str, value: str, ratio: str, limit: str, holds: bool) -> None:
        if not holds:
            self.short.append(name)
        verdict = ("ok" if holds else "FALLS SHORT") if limit else ""
        print(LINE.format(name, value, ratio, limit, verdict), flush=True)

    def end(self) -> None:
        """Ends the process, with 1 where a figure fell short."""
        if self.short:
            print(f"{len(self.short)} figures fall short: {'; '.join(self.short)}")
        sys.exit(1 if self.short else 0)


def interleaved(rounds: int, measures: Sequence[Callable[[], float]]) -> list[float]:
    """The median of each, taken in turn so that a slow moment of the machine strikes all of them."""
    taken = [[measure() for measure in measures] for _ in range(rounds)]
    return [median(column) for column in zip(*taken, strict=True)]
