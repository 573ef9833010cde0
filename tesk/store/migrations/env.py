"""What Alembic runs: connects to the database of the configuration and migrates it in one transaction."""

import asyncio
from pathlib import Path
from urllib.parse import unquote, urlsplit

from alembic import context
from sqlalchemy import Connection, create_engine, event, pool

from tesk.store.schema import metadata


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def migrate_sqlite(path: Path) -> None:
    """The driver of itself would begin no transaction before it makes a table."""
    engine = create_engine(f"sqlite:///{path}", poolclass=pool.NullPool)
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.connect() as connection:
        migrate(connection)
        connection.commit()


async def migrate_postgresql(url: str) -> None:
    import asyncpg
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=pool.NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


url: str = context.config.attributes["url"]
if url.startswith("sqlite:"):
    migrate_sqlite(Path(unquote(urlsplit(url).path)[1:]))
else:
    asyncio.run(migrate_postgresql(url))
