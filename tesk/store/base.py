"""What the rest of tesk asks of the store. SQL and drivers stay behind it.

The store keeps whole JSON documents, ready to be sent, beside the few columns that are searched. Identifiers are
ordered by time, so that the newest page is one descending walk over the primary key.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from tesk.tes import State, TaskLog

TaskId = str


class NewTask(Struct, frozen=True):
    """A task to be stored. `basic` is the BASIC document, `full` the FULL one where it differs (content)."""

    basic: bytes
    full: bytes | None = None
    name: str | None = None
    tags: dict[str, str] | None = None
    owner: int = 0
    warnings: list[str] | None = None


class Row(NamedTuple):
    """A stored task: `document` and `logs` are JSON (object, array of tesTaskLog) for the view asked for."""

    id: TaskId
    state: State
    created_ms: int
    document: bytes
    logs: bytes | None


class Brief(NamedTuple):
    """A stored task in the MINIMAL view."""

    id: TaskId
    state: State


class Unfinished(NamedTuple):
    """A task that has not ended; `submitted` when an engine was told of it."""

    id: TaskId
    owner: int
    state: State
    submitted: bool


class Queued(NamedTuple):
    """A task that no engine was told of: `basic` is its BASIC document, None where that is long (see `get`)."""

    id: TaskId
    owner: int
    basic: bytes | None


class Query(Struct, frozen=True):
    """A list request. `before` is the id after which the page begins (older tasks follow)."""

    limit: int
    view: str = "MINIMAL"
    before: TaskId | None = None
    state: State | None = None
    name_prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    owner: int | None = None


class Store(Protocol):
    """Every write returns after it is durable. Unknown ids give None or False, never an error."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Raises StoreError when the database does not answer within a few seconds."""

    async def create(self, new: NewTask) -> TaskId:
        """Stores the task as QUEUED. Where that fails or its caller gives up, the task is not run, whatever comes."""

    async def get(self, task_id: TaskId, view: str) -> Row | Brief | None:
        """Brief for MINIMAL, else Row. FULL has contents, stdout, stderr and system logs."""

    async def page(self, query: Query) -> list[Row | Brief]:
        """Newest first, at most `limit`; Briefs for MINIMAL, and for tasks that are long (see `get`), in any view."""

    async def submitted(self, task_id: TaskId) -> bool:
        """Notes that an engine is about to be told of a QUEUED task; False if it is not QUEUED any more."""

    async def advance(self, task_id: TaskId, state: State, log: TaskLog, earlier: Sequence[TaskLog] = ()) -> bool:
        """Records the state and the log, if the state may follow the present one (tes.NEXT) or is the present one.

        One conditional update: False when it changed nothing, as after a terminal state. The warnings of `create`
        stay in front of the log's own system logs; stdout and stderr are cut to their tails. `earlier`: the logs of
        attempts before it.
        """

    async def describe(self, task_id: TaskId, basic: bytes, full: bytes | None) -> None:
        """Replaces the task's documents, of which there are as many as before (see NewTask)."""

    async def cancel(self, task_id: TaskId) -> State | None:
        """CANCELED when no engine knows it yet, CANCELING when one does; the state that it has then, or None."""

    async def unfinished(self, after: TaskId | None = None, limit: int = 1000) -> list[Unfinished]:
        """Tasks that have not ended, oldest first."""

    async def queued(self, after: TaskId | None = None, limit: int = 1000) -> list[Queued]:
        """Tasks of which no engine was told yet, oldest first; none whose create is not answered yet."""

    async def prune(self, ended_before_ms: int, limit: int = 1000) -> int:
        """Deletes tasks that ended before that time; how many were deleted."""

    async def summarise(self) -> None:
        """Brings up to date what makes filters quick that each match many tasks; by and by it is done unasked."""


class StoreError(RuntimeError):
    """The database cannot be used: the message says which, why and what to do."""


class NotConfirmed(StoreError):
    """The database may have made the write, or may make it yet."""
