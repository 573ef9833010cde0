"""The messages that a task's own containers send to its taskmaster, the moment something is so.

`POST /POD` on the taskmaster's port, with `Authorization: Bearer TOKEN` and one of these as its JSON body; the answer
is 204, or 401 for a wrong token and 404 for a pod that the taskmaster does not wait for. Nothing depends on a message:
the same facts are in the pod's status and logs, a second or two later.
"""

from typing import Literal

from msgspec import Struct

from tesk.filer.plan import Event

Problem = Literal["", "workdir"]


class Started(Struct, frozen=True, tag="started", tag_field="told"):
    """The executor's program starts. `at`: RFC 3339 with fractions of a second."""

    at: str


class Ended(Struct, frozen=True, tag="ended", tag_field="told", omit_defaults=True):
    """The executor's program is over. `problem`: "workdir" when it never ran, since it could not have its workdir.

    `terminated`: its container was told to end before (TERM), as when its pod is deleted or evicted.
    """

    exit_code: int
    started: str
    ended: str
    out_of_memory: bool = False
    terminated: bool = False
    stdout: str = ""
    stderr: str = ""
    problem: Problem = ""


class Moved(Struct, frozen=True, tag="moved", tag_field="told", omit_defaults=True):
    """What the filer has to say since the last time; its last event is Done or Failed.

    `before`: the number of events that went before these, so that a taskmaster knows whether it has heard all.
    """

    events: list[Event]
    before: int = 0


PodMessage = Started | Ended | Moved
