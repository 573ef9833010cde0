"""What is read from logs, statuses and answers at the end of a step (pure)."""

import base64
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from tesk.clock import now
from tesk.filer.plan import Done, Failed
from tesk.filer.plan import Event as FilerEvent
from tesk.kubernetes import names
from tesk.kubernetes.messages import Ended, Moved, PodMessage
from tesk.kubernetes.objects import ConfigMap, Event, EventList, Terminated
from tesk.kubernetes.output import tails_from_log
from tesk.life.outcome import KILLED

LOG_LINES: Final = 100_000
STOPPED: Final = "the transfer was stopped"

_event = msgspec.json.Decoder(FilerEvent).decode
_ended = msgspec.json.Decoder(Ended).decode
_configmap = msgspec.json.Decoder(ConfigMap).decode
_events = msgspec.json.Decoder(EventList).decode


def recorded(configmap: bytes) -> bytes:
    """The packed record in a ConfigMap as JSON. Raises ValueError where there is none."""
    found = _configmap(configmap).binary_data.get(names.RECORD_KEY)
    if found is None:
        raise ValueError("the ConfigMap holds no record")
    return found if isinstance(found, bytes) else base64.b64decode(found)


def events(log: bytes) -> list[FilerEvent]:
    """What a filer wrote to its log; lines that are no events are left out."""
    found: list[FilerEvent] = []
    for line in log.splitlines():
        with contextlib.suppress(msgspec.MsgspecError):
            found.append(_event(line))
    return found


def joined_events(messages: Sequence[PodMessage]) -> tuple[list[FilerEvent], bool]:
    """The events of a filer by its messages, and whether that is all that it has said since its start."""
    found: list[FilerEvent] = []
    for moved in messages:
        if isinstance(moved, Moved):
            if moved.before > len(found):
                return found + moved.events, False
            found += moved.events[len(found) - moved.before :]
    return found, True


def is_last(events: Sequence[FilerEvent]) -> bool:
    """True when the filer has nothing more to say. One that was stopped from outside has not come to its end."""
    return bool(events) and (
        isinstance(events[-1], Done) or (isinstance(events[-1], Failed) and events[-1].message != STOPPED)
    )


def fuller(log: bytes | None, before: bytes) -> bytes:
    """A reporter's log, or what was read of it before where it says no more.

    For a container that is gone while its pod is not, the kubelet answers 200 and words of its own.
    """
    return log if log and any(tails_from_log(log.splitlines(), 1)) else before


def ended(end: Terminated, reporter: Terminated | None, log: bytes, tail_bytes: int) -> Ended:
    """The end of an executor by its container's status, what its reporter left as last words, and its output's log."""
    stdout, stderr = tails_from_log(log.splitlines(), tail_bytes)
    with contextlib.suppress(msgspec.MsgspecError):
        last = _ended((reporter.message if reporter else "") or "")
        return msgspec.structs.replace(last, stdout=stdout, stderr=stderr)
    stderr = stderr or (end.message if not stdout else "")  # of an entry point that came to no program
    return Ended(
        end.exit_code, end.started_at or now(), end.finished_at or now(), out_of_memory=end.reason == "OOMKilled",
        stdout=stdout, stderr=stderr,
    )  # fmt: skip


def killed(started: str | UnsetType, log: bytes, tail_bytes: int) -> Ended:
    """The end of an executor whose pod was gone before it could be asked; `log` is its output's from before."""
    stdout, stderr = tails_from_log(log.splitlines(), tail_bytes)
    return Ended(KILLED, now() if started is UNSET else started, now(), stdout=stdout, stderr=stderr)


def cluster_events(listing: bytes) -> list[Event]:
    """A list of the cluster's events, the newest last."""
    return sorted(_events(listing).items, key=lambda event: event.last_timestamp or event.event_time or "")
