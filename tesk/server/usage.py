"""GET /api/v1/usage: what users and groups used, by month, as JSON or CSV.

Users see their own, managers that of their groups, admins all: as they may end the tasks. A task counts when it has
ended. The sums stay when tasks are pruned.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from tesk.server.database_limit import DatabaseLimit
from tesk.server.exchange import Call, Header, Refusal, Reply, encode
from tesk.server.query import fields
from tesk.spreadsheet import csv_text
from tesk.store.base import Store
from tesk.store.identifiers import now_ms
from tesk.usage import FIELDS, MonthlyUsage, month_of

_MONTH: Final = re.compile("[0-9]{4}(-(0[1-9]|1[0-2]))?")
_CSV: Final[Header] = (b"content-type", b"text/csv; charset=utf-8")
FEW: Final = 500
"""So many rows are written in the event loop; more in a thread."""
ROW_BYTES: Final = 400


class UsageCalls:
    """`month`: one month (2026-11) or a year (2026), by default the present month. `format`: json or csv."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._within = DatabaseLimit().within

    async def get(self, call: Call) -> Reply:
        asked = dict(fields(call.query))
        month, wanted = asked.get("month") or month_of(now_ms()), asked.get("format") or "json"
        if not _MONTH.fullmatch(month):
            raise Refusal(400, f"{month[:100]!r} is neither a month (2026-11) nor a year (2026)", "month")
        if wanted not in ("json", "csv"):
            raise Refusal(400, f"{wanted[:100]!r} is not a format; it is json or csv", "format")
        last = month if "-" in month else f"{month}-12"
        found = await self._within(self._store.usage(month, last, call.identity))
        await call.share.take(len(found) * ROW_BYTES)
        write = _csv if wanted == "csv" else _json
        body = write(found) if len(found) <= FEW else await asyncio.to_thread(write, found)
        return Reply(200, body, (), _CSV) if wanted == "csv" else Reply(200, body)


def _json(found: Sequence[MonthlyUsage]) -> bytes:
    return encode({"usage": [dict(zip(FIELDS, each.shown(), strict=True)) for each in found]})


def _csv(found: Sequence[MonthlyUsage]) -> bytes:
    return csv_text(FIELDS, map(MonthlyUsage.shown, found)).encode()
