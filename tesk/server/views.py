"""Answers put together from stored bytes: first the fields that change, then the document as it was stored.

Nothing is decoded or encoded again, so a page of 256 tasks takes a few milliseconds. The exception are the logs of a
task whose outputs' URLs hold a user or a query. Stored documents have no unset, null or default fields: clients fail on
them.
"""

import time
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET

from tesk.server.outputs import with_requested_urls
from tesk.store.base import Brief, Row
from tesk.tes import State, TaskLog, encode

NAMES: Final = [State(n).name for n in range(len(State))]
_logs: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_log: Final = msgspec.json.Decoder(TaskLog).decode


def task(row: Row | Brief) -> bytes:
    """tesTask as JSON: exactly id and state for a Brief (MINIMAL), the whole document for a Row."""
    if isinstance(row, Brief):
        return f'{{"id":"{row[0]}","state":"{NAMES[row[1]]}"}}'.encode()
    identifier, state, created_ms, document, logs, _ = row
    created = f"{_second(created_ms // 1000)}.{created_ms % 1000:03d}Z"
    head = f'{{"id":"{identifier}","state":"{NAMES[state]}","creation_time":"{created}",'.encode()
    if logs:
        return b'%b"logs":%b,%b' % (head, with_requested_urls(logs, document), document[1:])
    return head + document[1:]


def tasks(parts: list[bytes], next_page_token: str) -> bytes:
    """tesListTasksResponse as JSON; the token of the last page is empty, not absent."""
    return b'{"tasks":[%b],"next_page_token":"%b"}' % (b",".join(parts), next_page_token.encode())


def with_live_log(logs: bytes | None, live: TaskLog) -> bytes:
    """The stored logs with the last entry replaced by what the running task has written so far.

    System logs that only the store knows (warnings of the request) stay in front.
    """
    entries = _logs(logs) if logs else []
    if entries:
        stored = _log(entries.pop()).system_logs or []
        said = live.system_logs or []
        merged = [line for line in stored if line not in said] + said
        live = msgspec.structs.replace(live, system_logs=merged or UNSET)
    return encode([*entries, live])


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
