"""Stores tasks durably, searched by indexes, in SQLite or PostgreSQL.

The rest of tesk calls `open_store`; `base` says what a store does. Only this package knows SQL.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tesk.store.base import Store, StoreError

__all__ = ["Store", "StoreError", "open_store"]


def open_store(url: str, *, log_tail_bytes: int) -> Store:
    """The store for `sqlite:///path` or `postgresql://…`; the caller opens it with `open()`.

    Keeps the last `log_tail_bytes` of each executor's stdout and stderr. Raises StoreError for another URL.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from tesk.store.sqlite import SqliteStore

        parts = urlsplit(url)
        path = unquote(parts.path)[1:]
        if parts.netloc or not path:
            raise StoreError("a SQLite URL is sqlite:///relative/path or sqlite:////absolute/path")
        return SqliteStore(Path(path), log_tail_bytes=log_tail_bytes)
    if scheme in ("postgresql", "postgres"):
        from tesk.store.postgresql import PostgresqlStore

        return PostgresqlStore(url, log_tail_bytes=log_tail_bytes)
    raise StoreError(f"unsupported database {scheme!r}: use sqlite:///path or postgresql://user@host/database")
