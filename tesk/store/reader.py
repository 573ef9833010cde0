"""The little that both databases have in common for reading: run a statement, get its rows."""

from collections.abc import Sequence
from typing import Any, Protocol

from tesk.store.queries import Sql


class Reader(Protocol):
    async def __call__(self, sql: Sql) -> Sequence[Any]: ...
