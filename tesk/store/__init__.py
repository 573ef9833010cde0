"""Stores tasks durably, searched by indexes, in SQLite or PostgreSQL.

The rest of tesk calls `open_store`; `base` says what a store does. Only this package knows SQL.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tesk.settings import Settings
from tesk.store.base import Store, StoreError
from tesk.store.tokens import TokenTable

__all__ = ["Store", "StoreError", "database_of", "open_store", "tokens_beside_server"]


def open_store(url: str, *, log_tail_bytes: int) -> Store:
    """The store for `sqlite:///path` or `postgresql://…`; the caller opens it with `open()`.

    Keeps the last `log_tail_bytes` of each executor's stdout and stderr. Raises StoreError for another URL.
    """
    if path := _sqlite_path(url):
        from tesk.store.sqlite import SqliteStore

        return SqliteStore(path, log_tail_bytes=log_tail_bytes)
    from tesk.store.postgresql import PostgresqlStore

    return PostgresqlStore(url, log_tail_bytes=log_tail_bytes)


@asynccontextmanager
async def tokens_beside_server(url: str) -> AsyncIterator[TokenTable]:
    """The API tokens in a database, whether or not a server has it open. Makes what is missing of the database."""
    if path := _sqlite_path(url):
        from tesk.store import sqlite

        with sqlite.beside_server(path) as table:
            yield table
        return
    from tesk.store import postgresql

    async with postgresql.beside_server(url) as table:
        yield table


def database_of(settings: Settings) -> str:
    """The URL of the database that the settings name. Makes the data folder where it is in there."""
    if settings.database_url:
        return settings.database_url
    data = Path(settings.data).expanduser().absolute()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the data folder {data}: {error.strerror}; choose another --data") from None
    return f"sqlite:///{quote(str(data))}/tesk.db"


def _sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL, None for PostgreSQL. Raises StoreError for another URL."""
    scheme = url.partition("://")[0]
    if scheme in ("postgresql", "postgres"):
        return None
    if scheme != "sqlite":
        raise StoreError(f"unsupported database {scheme!r}: use sqlite:///path or postgresql://user@host/database")
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc or not path:
        raise StoreError("a SQLite URL is sqlite:///relative/path or sqlite:////absolute/path")
    return Path(path)
