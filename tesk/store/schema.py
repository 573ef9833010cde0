"""The newest schema, as SQLAlchemy Core tables: the one description that migrations are held against.

A server never imports this module: SQLAlchemy costs more time and memory than all the rest of the store. It reads the
same tables as SQL from `newest/`, which `python -m tesk.store.schema` writes and a test compares.

A task's row has its BASIC document near its end, which a page sends unchanged. Data of the FULL view alone lies in
tables of its own, so that pages do not read it. Every index that lists use ends with the id, in the order of lists.
A task has the numbers of its user and its group, of rows of `principal`; 0 is nobody. The indexes of both leave out
what is nobody's, so that a server that asks nobody to sign in does not pay for them.
Indexed values have a limited size, since PostgreSQL cannot index a row of more than 2,704 bytes.
"""

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from tesk.store.queries import NAME_INDEXED

NEWEST = Path(__file__).parent / "newest"

metadata = MetaData()
identifier = BigInteger().with_variant(Integer, "sqlite")
plain_text = Text().with_variant(Text(collation="C"), "postgresql")

task = Table(
    "task",
    metadata,
    Column("id", identifier, primary_key=True, autoincrement=False),
    Column("owner", Integer, nullable=False, doc="the user's principal.id, or 0"),
    Column("state", SmallInteger, nullable=False, doc="tes.State"),
    Column("submitted", SmallInteger, nullable=False, doc="1 once a place may know the task"),
    Column("created", BigInteger, nullable=False, doc="ms since 1970"),
    Column("ended", BigInteger, doc="ms since 1970; null until the state is terminal"),
    Column("name", plain_text),
    Column("tags", LargeBinary, doc="JSON object; the table tag has a row for each"),
    Column("warnings", LargeBinary, doc="JSON array of texts"),
    Column("basic", LargeBinary, nullable=False, doc="BASIC document"),
    Column("logs", LargeBinary, doc="BASIC logs"),
    Column("owner_group", Integer, nullable=False, server_default=text("0"), doc="the group's principal.id, or 0"),
    Column("grants", LargeBinary, doc="JSON of rules.Grants; null: none"),
)
owned, grouped = text("owner <> 0"), text("owner_group <> 0")
Index("task_owner", task.c.owner, task.c.id, task.c.state, sqlite_where=owned, postgresql_where=owned)
Index(
    "task_owner_group",
    task.c.owner_group,
    task.c.id,
    task.c.state,
    sqlite_where=grouped,
    postgresql_where=grouped,
)
Index("task_state", task.c.state, task.c.id)
indexed_name = text(f"substr(name, 1, {NAME_INDEXED})")
Index("task_name", indexed_name, task.c.id)
unended, over = text("ended IS NULL"), text("ended IS NOT NULL")
Index("task_unfinished", task.c.id, task.c.owner, sqlite_where=unended, postgresql_where=unended)
Index("task_ended", task.c.ended, sqlite_where=over, postgresql_where=over)

frontier = Table(
    "frontier",
    metadata,
    Column("one", identifier, primary_key=True, autoincrement=False, doc="1: there is one row"),
    Column("closed", BigInteger, nullable=False, doc="no task is added with this id or a smaller one"),
)

block = Table(
    "span",
    metadata,
    Column("number", identifier, primary_key=True, autoincrement=False),
    Column("first", BigInteger, nullable=False, doc="no id of the block is less"),
    Column("last", BigInteger, nullable=False, doc="no id of the block is greater"),
    Column("held", Integer, nullable=False, doc="positions that are taken"),
    Column("unended", Integer, nullable=False, doc="tasks that had not ended when their states were summarised"),
    Column("alive", Integer, nullable=False, doc="tasks that were there when it was summarised"),
    Column("pruned", Integer, nullable=False, doc="tasks that were pruned since"),
)
Index("span_first", block.c.first, unique=True)

position = Table(
    "place",
    metadata,
    Column("ordinal", identifier, primary_key=True, autoincrement=False, doc="number of the block * SIZE + position"),
    Column("task", BigInteger, nullable=False),
)

bitmap = Table(
    "term",
    metadata,
    Column("span", identifier, primary_key=True, autoincrement=False),
    Column("term", plain_text, primary_key=True, doc="what tasks can have in common (blocks.py)"),
    Column("found", LargeBinary, nullable=False, doc="bitmap of the positions that have it"),
    sqlite_with_rowid=False,
)

content = Table(
    "content",
    metadata,
    Column("task", identifier, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False, doc="FULL document, where it differs from the BASIC one"),
)

log = Table(
    "log",
    metadata,
    Column("task", identifier, primary_key=True, autoincrement=False),
    Column("logs", LargeBinary, nullable=False, doc="FULL logs"),
)

tag = Table(
    "tag",
    metadata,
    Column("key", plain_text, primary_key=True),
    Column("task", identifier, primary_key=True, autoincrement=False),
    Column("value", plain_text, nullable=False),
    sqlite_with_rowid=False,
)
Index("tag_value", tag.c.key, tag.c.value, tag.c.task)

principal = Table(
    "principal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", SmallInteger, nullable=False, doc="principals.PrincipalKind"),
    Column("name", plain_text, nullable=False, doc="as queries.tag_text shortens it"),
)
Index("principal_name", principal.c.kind, principal.c.name, unique=True)

share = Table(
    "share",
    metadata,
    Column("owner", Integer, primary_key=True, autoincrement=False, doc="principal.id of the user whose tasks"),
    Column("colleague", Integer, primary_key=True, autoincrement=False, doc="principal.id of the user who sees them"),
)
api_token = Table(
    "api_token",
    metadata,
    Column("id", plain_text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, doc="SHA-256 of the token's text"),
    Column("username", plain_text, nullable=False),
    Column("name", plain_text, nullable=False),
    Column("scopes", plain_text, nullable=False, doc="with a space between"),
    Column("way", plain_text, nullable=False, doc="the way in by which its user had signed in"),
    Column("rights", LargeBinary, nullable=False, doc="JSON of tokens.UserRights"),
    Column("made", BigInteger, nullable=False, doc="ms since 1970"),
    Column("expires", BigInteger, nullable=False, doc="ms since 1970"),
    Column("used", BigInteger, doc="ms since 1970; null until it is used"),
    Column("revoked", BigInteger, doc="ms since 1970; null until it is revoked"),
    sqlite_with_rowid=False,
)
Index("api_token_digest", api_token.c.digest, unique=True)
Index("api_token_username", api_token.c.username, api_token.c.made, api_token.c.id)

usage = Table(
    "usage",
    metadata,
    Column("month", plain_text, primary_key=True, doc="as in 2026-11"),
    Column("owner", Integer, primary_key=True, autoincrement=False, doc="the user's principal.id, or 0"),
    Column("owner_group", Integer, primary_key=True, autoincrement=False, doc="the group's principal.id, or 0"),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False, doc="see usage.Lanes"),
    Column("tasks", BigInteger, nullable=False, doc="that started, and ended in this month"),
    Column("core_ms", BigInteger, nullable=False, doc="cores * ms"),
    Column("ram_gib_ms", BigInteger, nullable=False, doc="GiB * ms"),
    Column("gpu_ms", BigInteger, nullable=False, doc="GPUs * ms"),
    Column("bytes_out", BigInteger, nullable=False, doc="of the outputs in the tasks' logs"),
    sqlite_with_rowid=False,
)
grouped = text("owner_group <> 0")
Index("usage_owner_group", usage.c.month, usage.c.owner_group, sqlite_where=grouped, postgresql_where=grouped)

version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def statements(dialect: Dialect) -> str:
    """SQL that makes all tables in an empty database."""
    made: list[str] = []
    for table in (*metadata.sorted_tables, version):
        made.append(str(CreateTable(table).compile(dialect=dialect)).strip())
        made += [str(CreateIndex(each).compile(dialect=dialect)).strip() for each in sorted(table.indexes, key=str)]
    return "".join(f"{each};\n" for each in [*made, "INSERT INTO frontier (one, closed) VALUES (1, 0)"])


def dialects() -> dict[str, Dialect]:
    return {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect()}  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    for name, dialect in dialects().items():
        (NEWEST / f"{name}.sql").write_text(statements(dialect))
