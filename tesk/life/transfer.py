"""What a filer has said of its step, event by event, in the words of a task's log (pure)."""

from collections.abc import Iterable

from msgspec import Struct

from tesk.filer.plan import Done, Event, Failed, Large, Looked, Progress, Pushed, Typed, Warned
from tesk.life.log import cut_outputs
from tesk.tes import OutputFileLog

MOST_WARNINGS: int = 1000
SILENT: str = "the filer ended without a word; was it killed, or is memory short?"


class Transfer(Struct):
    """What a filer has moved, and how it ended."""

    outputs: list[OutputFileLog] = []
    """The first of the files that it has pushed."""
    pushed: int = 0
    """How many those were."""
    warnings: list[str] = []
    warned: int = 0
    types: str = ""
    """What its inputs or outputs are (tes.FileTypes)."""
    occupied: dict[str, bool] | None = None
    """See layout.Found; None where it did not look."""
    alone: list[str] = []
    """Inputs that are too large to be copied."""
    progress: Progress | None = None
    is_done: bool = False
    failure: str = ""

    def add(self, event: Event, *, is_shown: bool = True) -> None:
        """Takes the next event. `is_shown`: false for an output that the log has no room for."""
        self.is_done = isinstance(event, Done)
        if isinstance(event, Pushed):
            self.pushed += 1
            if is_shown:
                self.outputs.append(OutputFileLog(event.url, event.path, str(event.size_bytes)))
        elif isinstance(event, Warned):
            self.warned += 1
            if self.warned <= MOST_WARNINGS:
                self.warnings.append(event.message)
        elif isinstance(event, Typed):
            self.types = event.letters
        elif isinstance(event, Looked):
            self.occupied = event.occupied
        elif isinstance(event, Large):
            self.alone.append(event.path)
        elif isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Failed):
            self.failure = event.message

    @property
    def verdict(self) -> str:
        """Why the step failed; empty when it went well."""
        return "" if self.is_done else self.failure or SILENT

    def notes(self) -> list[str]:
        """The lines for the system log."""
        lines = [f"warning: {warning}" for warning in self.warnings]
        if self.warned > len(self.warnings):
            lines.append(f"warning: {self.warned - len(self.warnings)} further warnings are left out")
        if self.pushed > len(self.outputs):
            lines.append(cut_outputs(self.pushed, len(self.outputs)))
        return lines


def transfer(events: Iterable[Event]) -> Transfer:
    """All that a filer has said."""
    found = Transfer()
    for event in events:
        found.add(event)
    return found
