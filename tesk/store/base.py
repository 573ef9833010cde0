"""What the rest of tesk asks of the store. SQL and database drivers stay inside the package.

The store keeps whole JSON documents, ready to be sent, beside the few columns that are searched. Ids are ordered by
time, so the newest page is one descending scan of the primary key.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from tesk.identity import Identity, Owner
from tesk.rules import NO_GRANTS, Grants
from tesk.store.tokens import TokenTable
from tesk.tes import State, TaskLog
from tesk.usage import MonthlyUsage, Used

TaskId = str


class NewTask(Struct, frozen=True):
    """A task to be stored."""

    basic: bytes
    """The BASIC document."""
    full: bytes | None = None
    """The FULL document where it differs: where inputs have content."""
    name: str | None = None
    tags: dict[str, str] | None = None
    owner: Owner = Owner()
    """Whose task it is. By default nobody's, which admins alone see."""
    warnings: list[str] | None = None
    grants: Grants = NO_GRANTS


class Row(NamedTuple):
    """A stored task in the BASIC or FULL view. `document` and `logs` are JSON: an object, an array of tesTaskLog.

    `grants` are there in the FULL view alone, and go to the place, never to clients.
    """

    id: TaskId
    state: State
    created_ms: int
    document: bytes
    logs: bytes | None
    grants: Grants = NO_GRANTS


class Brief(NamedTuple):
    """A stored task in the MINIMAL view."""

    id: TaskId
    state: State


class Unfinished(NamedTuple):
    """A task that has not ended. `owner`: the number of its user. `submitted`: a place may know it."""

    id: TaskId
    owner: int
    state: State
    submitted: bool


class Queued(NamedTuple):
    """A task that no place knows yet. `owner`: the number of its user. `basic` is its BASIC document, None for a long
    one (see `get`)."""

    id: TaskId
    owner: int
    basic: bytes | None


Documents = tuple[bytes, bytes | None]
"""What a task says of itself: see NewTask. The second is None exactly if it was None there."""


class Query(Struct, frozen=True):
    """A list request. The page begins after the task `before`, with older tasks."""

    limit: int
    view: str = "MINIMAL"
    before: TaskId | None = None
    state: State | None = None
    name_prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


class Shares(NamedTuple):
    """With whom a user shares the own tasks, and who shares theirs with the user: names, sorted."""

    seen_by: list[str]
    sees: list[str]


class Store(Protocol):
    """Every write returns after it is durable. An unknown id gives None or False, never an error.

    What is read or ended for somebody takes that identity: a task which it may not see is as one that does not exist.
    """

    tokens: TokenTable

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Raises StoreError when the database does not answer within a few seconds."""

    async def create(self, new: NewTask) -> TaskId:
        """Stores the task as QUEUED. If that fails, or if the caller gives up, the task never runs."""

    async def get(self, task_id: TaskId, view: str, identity: Identity) -> Row | Brief | None:
        """Brief for MINIMAL, else Row. FULL has contents, stdout, stderr and system logs."""

    async def page(self, query: Query, identity: Identity) -> list[Row | Brief]:
        """At most `limit` tasks that it may see, newest first.

        Briefs for MINIMAL, and in any view for long tasks (see `get`).
        """

    async def submitted(self, task_id: TaskId) -> bool:
        """Records that a place is about to get a QUEUED task. False if the task is not QUEUED any more."""

    async def advance(
        self, task_id: TaskId, state: State, log: TaskLog, earlier: Sequence[TaskLog] = (),
        new: Documents | None = None, used: Sequence[Used] = (),
    ) -> bool:  # fmt: skip
        """Records the state and the log, if the state is the present one or may follow it (tes.NEXT).

        One conditional update. False when nothing changed, as after a terminal state. The warnings of `create` stay
        before the log's own system logs; stdout and stderr are cut to their tails. `earlier`: the logs of the attempts
        before this one. `new`: what the task's documents become. `used`: what the task used, which counts once with the
        state, for the task's user and group.
        """

    async def cancel(self, task_id: TaskId, identity: Identity) -> State | None:
        """Makes the task CANCELED if no place knows it, else CANCELING. Returns its state, None for an unknown id.

        Raises MayNotEnd where the task may be seen but not ended.
        """

    async def share(self, user: str, colleague: str) -> None:
        """Lets the colleague see the user's tasks from now on. Raises ValueError for text that no database can hold."""

    async def unshare(self, user: str, colleague: str) -> None:
        """Ends that."""

    async def shares(self, user: str) -> Shares: ...

    async def usage(self, first: str, last: str, identity: Identity) -> list[MonthlyUsage]:
        """What was used from the first month to the last ("2026-11"), by those whose tasks the caller may end."""

    async def core_seconds(self, month: str, owner: Owner) -> tuple[float, float]:
        """Cores times seconds in a month: the user's, and those of the whole group. Nobody's are not counted."""

    async def unfinished(self, after: TaskId | None = None, limit: int = 1000) -> list[Unfinished]:
        """Tasks that have not ended, oldest first."""

    async def queued(
        self, after: TaskId | None = None, limit: int = 1000, without: Collection[int] = ()
    ) -> list[Queued]:
        """Tasks that no place knows yet, oldest first, except those whose create is not answered yet.

        `without`: the numbers of users whose tasks are left out.
        """

    async def prune(self, ended_before_ms: int, limit: int = 1000) -> int:
        """Deletes tasks that ended before that time. Returns how many."""

    async def summarise(self) -> None:
        """Brings the bitmaps of blocks up to date (see blocks). The store does so in the background too."""


class MayNotEnd(Exception):
    """The caller sees the task, and may not end it."""

    def __init__(self, task_id: TaskId) -> None:
        super().__init__(
            f"task {task_id} is another user's: it may be cancelled by that user, by a manager of its group "
            "and by an admin"
        )


class StoreError(RuntimeError):
    """The database cannot be used: the message says which, why and what to do."""


class NotConfirmed(StoreError):
    """The database may have made the write, or may still make it."""
