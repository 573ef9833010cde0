"""The TES operations: create, get, list, cancel. Each takes a Call and gives a Reply.

A create answers after the task is durably stored, and never fails after that. The dispatcher does everything else about
a task. Every wait for the database has a limit below the 10 s after which clients give up.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final, cast

import msgspec

from tesk import tes
from tesk.dispatch.dispatcher import Dispatcher
from tesk.errors import NotAllowed
from tesk.identity import Identity, Owner
from tesk.rules.file import RulesFile
from tesk.rules.granting import grants
from tesk.server import query, views
from tesk.server.body import Bodies
from tesk.server.budget import SMALL_BYTES, MemoryShare
from tesk.server.database_limit import DatabaseLimit
from tesk.server.exchange import Call, Refusal, Reply
from tesk.server.maxima import Maxima, check
from tesk.server.quotas import CreationQuotas
from tesk.store.base import Brief, MayNotEnd, NewTask, Query, Row, Store, TaskId

GROUP_TAG: Final = "group"
"""The tag that says for which group a task is made."""
PAGE_BYTES: Final = 16 * 1024 * 1024
"""A page ends early when its documents together are this large; its token says where the next page begins."""
LEAST_PAGE_BYTES: Final = 1024 * 1024
"""The same limit where the memory budget is nearly used up."""
FIRST_ROWS: Final = 32
MOST_ROWS: Final = 256
"""Rows that are read at once; each may have LONG_BYTES."""


class Tasks:
    """The handlers of /tasks."""

    def __init__(
        self, store: Store, dispatcher: Dispatcher, parameters: Collection[str], max_body_bytes: int,
        most: Maxima, rules: RulesFile,
    ) -> None:  # fmt: skip
        self._store = store
        self._dispatcher = dispatcher
        self._parameters = parameters
        self._bodies = Bodies(max_body_bytes)
        self._most = most
        self._rules = rules
        self._quotas = CreationQuotas(store, rules)
        self._within = DatabaseLimit().within

    async def create(self, call: Call) -> Reply:
        body = await self._bodies.read_json(call)
        given = body, call.identity
        new = self._new_task(*given) if len(body) < SMALL_BYTES else await asyncio.to_thread(self._new_task, *given)
        call.task_id = await self._within((self._quotas or self._store).create(new))
        self._dispatcher.wake()
        return Reply(200, f'{{"id":"{call.task_id}"}}'.encode())

    def _new_task(self, body: bytes, identity: Identity) -> NewTask:
        """The task to be stored. This takes long for thousands of files. Raises Refusal (400, 403)."""
        try:
            task, warnings = tes.parse(body, parameters=self._parameters)
            check(task, self._most)
            given = grants(task, self._rules.rules, identity)
        except tes.InvalidTask as error:
            raise Refusal(400, str(error), error.field) from None
        except NotAllowed as error:
            raise Refusal(403, str(error), error.field) from None
        tags = cast(dict[str, str] | None, task.tags)
        owner = _owner(identity, tags or {})
        if self._quotas:
            self._quotas.check(owner, self._dispatcher.demand(task.resources))
        basic, full = tes.documents(task)
        return NewTask(
            basic=basic,
            full=full,
            name=task.name,
            tags=tags,
            owner=owner,
            warnings=warnings or None,
            grants=given,
        )

    async def get(self, call: Call) -> Reply:
        view = query.view(call.query)
        row = await self._within(self._store.get(call.task_id, view, call.identity))
        if isinstance(row, Row) and not call.share.try_take(size := _size(row)):
            row = None  # a request that waits for room holds no memory
            await call.share.take(size)
            row = await self._within(self._store.get(call.task_id, view, call.identity))
        if row is None:
            raise _unknown(call.task_id)
        if view == "FULL" and isinstance(row, Row) and not row.state.is_terminal:
            live = await self._within(self._dispatcher.live_log(call.task_id, call.identity))
            if live is not None:
                row = row._replace(logs=views.with_live_log(row.logs, live))
        return Reply(200, views.task(row))

    async def list_(self, call: Call) -> Reply:
        wanted = query.page(call.query)
        if wanted.view != "MINIMAL":
            await call.share.take(LEAST_PAGE_BYTES)
        parts, last = await self._within(self._page(wanted, call.identity, call.share))
        return Reply(200, views.tasks(parts, query.token(last) if last else ""))

    async def _page(self, wanted: Query, identity: Identity, share: MemoryShare) -> tuple[list[bytes], TaskId | None]:
        """The tasks of a page as JSON, and the id that it ends with if more tasks follow.

        Documents may have megabytes each. Short documents are read in steps, sized by the average length so far; long
        documents are read one by one.
        """
        parts: list[bytes] = []
        size = 0
        before = wanted.before
        while True:
            ask = wanted.limit + 1 - len(parts)
            if wanted.view != "MINIMAL":
                ask = min(ask, _affordable(len(parts), size), MOST_ROWS)
            rows = await self._store.page(msgspec.structs.replace(wanted, limit=ask, before=before), identity)
            for row in rows:
                if len(parts) == wanted.limit or size > share.page_bytes(PAGE_BYTES, LEAST_PAGE_BYTES):
                    return parts, before
                found = row if wanted.view == "MINIMAL" else await self._whole(row, wanted.view, identity)
                if found is None:
                    continue
                part = views.task(found)
                if not share.try_take(size + len(part)):
                    if parts:
                        return parts, before
                    await share.take(size + len(part))
                parts.append(part)
                size += len(part)
                before = row.id
            if len(rows) < ask:
                return parts, None

    async def _whole(self, row: Row | Brief, view: str, identity: Identity) -> Row | Brief | None:
        return row if isinstance(row, Row) else await self._store.get(row.id, view, identity)

    async def cancel(self, call: Call) -> Reply:
        await self._bodies.read_json(call, may_be_empty=True)
        try:
            state = await self._within(self._dispatcher.cancel(call.task_id, call.identity))
        except MayNotEnd as error:
            raise Refusal(403, str(error), "id") from None
        if state is None:
            raise _unknown(call.task_id)
        return Reply(200, b"{}")


def _owner(identity: Identity, tags: Mapping[str, str]) -> Owner:
    """Whose a new task is. Raises Refusal (403) for a group that is not the user's."""
    group = tags.get(GROUP_TAG)
    owner = identity.owner(group)
    if owner is None:
        own = ", ".join(sorted(identity.groups)) or "none"
        raise Refusal(403, f"you are not in the group {(group or '')[:200]!r}; your groups: {own}", f"tags.{GROUP_TAG}")
    return owner


def _affordable(fetched: int, size: int) -> int:
    """How many rows may be read next, by the average size of the rows before."""
    return FIRST_ROWS if not fetched else max(1, (PAGE_BYTES - size) * fetched // max(size, 1) + 1)


def _size(row: Row) -> int:
    return len(row.document) + len(row.logs or b"")


def _unknown(task_id: str) -> Refusal:
    return Refusal(404, f"there is no task {task_id[:64]!r}", "id")
