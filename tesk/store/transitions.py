"""The state machine as SQL: each change is one conditional UPDATE, so that no race can change a terminal state.

The conditions are made from tes.NEXT; nothing else in the store knows which state may follow which.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from tesk.store.queries import LONG_BYTES, Dialect, Parameter, Sql, tag_text
from tesk.tes import NEXT, TERMINAL, State

_read_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


def allowed_from(state: State) -> frozenset[State]:
    """The states of a task that may get `state`: those that it may follow, and itself unless it is terminal."""
    before = {earlier for earlier, later in NEXT.items() if state in later}
    return frozenset(before if state in TERMINAL else before | {state})


def _numbers(states: frozenset[State]) -> str:
    return ", ".join(str(int(state)) for state in sorted(states))


ADVANCE: Final = {
    state: f"UPDATE task SET state = {int(state)}, logs = ?, ended = ?, basic = coalesce(?, basic) "
    f"WHERE id = ? AND state IN ({_numbers(allowed_from(state))})"
    for state in State
}
"""By the new state. Parameters: BASIC logs, time of the end (ms) or null, the new BASIC document or null, id."""

SUBMITTED: Final = f"UPDATE task SET submitted = 1 WHERE id = ? AND state = {int(State.QUEUED)}"

_UNSUBMITTED = f"state = {int(State.QUEUED)} AND submitted = 0"

CANCEL: Final = (
    f"UPDATE task SET ended = CASE WHEN {_UNSUBMITTED} THEN CAST(? AS BIGINT) END, "
    f"state = CASE WHEN {_UNSUBMITTED} THEN {int(State.CANCELED)} ELSE {int(State.CANCELING)} END "
    f"WHERE id = ? AND state IN ({_numbers(allowed_from(State.CANCELING) - {State.CANCELING})})"
)
"""Parameters: time (ms), id."""

STATE: Final = "SELECT state FROM task WHERE id = ?"

UNFINISHED: Final = (
    "SELECT id, owner, owner_group, state, submitted FROM task WHERE ended IS NULL AND id > ? ORDER BY id LIMIT ?"
)

QUEUED: Final = (
    f"SELECT id, owner, owner_group, CASE WHEN length(basic) <= {LONG_BYTES} THEN basic END "
    f"FROM task WHERE ended IS NULL AND {_UNSUBMITTED} AND id > ? ORDER BY id LIMIT ?"
)
"""Parameters: id after which to begin, limit. Long documents are left out, so that pages take little memory."""


def queued(after: int, limit: int, without: Collection[int], dialect: Dialect) -> Sql:
    """The oldest tasks that no place knows yet, except those of some owners, whose entries in the index are skipped."""
    if not without:
        return Sql(QUEUED, (after, limit))
    given: Parameter = str(list(without)) if dialect.pins else list(without)
    others = "NOT IN (SELECT value FROM json_each(?))" if dialect.pins else "<> ALL(?::int[])"
    return Sql(QUEUED.replace(" ORDER BY", f" AND owner {others} ORDER BY"), (after, given, limit))


def count_queued(owner: int, group: int, limit: int, dialect: Dialect) -> Sql:
    """How many tasks of a user and of a group are QUEUED: one row, each counted up to the limit.

    Their entries in one index are counted, from the oldest QUEUED task of anybody on.
    """
    counts, parameters = list[str](), list[Parameter]()
    for column, number in (("owner", owner), ("owner_group", group)):
        oldest = f"(SELECT min(id) FROM task WHERE state = {int(State.QUEUED)})"
        where, order = f"{column} = ? AND id >= {oldest}", ""
        given: list[Parameter] = [number]
        if dialect.compares_rows:
            where, order = f"({column}, id) >= (?, {oldest}) AND {column} <= ?", f" ORDER BY {column}, id"
            given.append(number)
        pin = f" INDEXED BY task_{column}" if dialect.pins else ""
        where = f"{where} AND {column} <> 0 AND state = {int(State.QUEUED)}"
        counts.append(f"(SELECT count(*) FROM (SELECT 1 FROM task{pin} WHERE {where}{order} LIMIT ?) AS q)")
        parameters += [*given, limit]
    return Sql(f"SELECT {', '.join(counts)}", tuple(parameters))


WITHDRAWN: Final = f"SELECT id, tags FROM task WHERE id = ? AND {_UNSUBMITTED}"
PRUNABLE: Final = "SELECT id, tags FROM task WHERE ended < ? ORDER BY ended LIMIT ?"


def tag_keys(tags: bytes | None) -> list[str]:
    """The keys of a task's rows in the tag table, from its `tags` column."""
    return [] if tags is None else [tag_text(key) for key in _read_tags(tags)]
