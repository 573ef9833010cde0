"""What reading needs of a database: run a statement, return its rows."""

from collections.abc import Sequence
from typing import Any, Protocol

from tesk.store.queries import Sql


class Reader(Protocol):
    async def __call__(self, sql: Sql) -> Sequence[Any]: ...
