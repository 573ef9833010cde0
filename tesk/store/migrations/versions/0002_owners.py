"""Whose task it is: principals, groups, shares, and indexes and bitmaps that do not begin with an owner.

Until now every task was made where nobody signed in, and had the owner 0. So the bitmaps stay as they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

IDENTIFIER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NAME = sa.text("substr(name, 1, 500)")
UNENDED = sa.text("ended IS NULL")
OWNED, GROUPED = sa.text("owner <> 0"), sa.text("owner_group <> 0")


def upgrade() -> None:
    op.create_table(
        "principal",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
    )
    op.create_index("principal_name", "principal", ["kind", "name"], unique=True)
    op.create_table(
        "share",
        sa.Column("owner", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("colleague", sa.Integer(), primary_key=True, autoincrement=False),
    )
    for name in ("task_owner", "task_state", "task_name", "task_unfinished"):
        op.drop_index(name, "task")
    op.add_column("task", sa.Column("owner_group", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.create_index("task_owner", "task", ["owner", "id", "state"], sqlite_where=OWNED, postgresql_where=OWNED)
    op.create_index(
        "task_owner_group", "task", ["owner_group", "id", "state"], sqlite_where=GROUPED, postgresql_where=GROUPED
    )
    op.create_index("task_state", "task", ["state", "id"])
    op.create_index("task_name", "task", [NAME, "id"])
    op.create_index("task_unfinished", "task", ["id", "owner"], sqlite_where=UNENDED, postgresql_where=UNENDED)
    op.drop_index("tag_value", "tag")
    if op.get_bind().dialect.name == "postgresql":
        _drop_owner("tag", ["key", "task"])
        _drop_owner("term", ["span", "term"])
    else:
        _copy_tags()
        _copy_bitmaps()
    op.create_index("tag_value", "tag", ["key", "value", "task"])


def _drop_owner(table: str, key: list[str]) -> None:
    """PostgreSQL drops the primary key together with its column."""
    op.drop_column(table, "owner")
    op.create_primary_key(f"{table}_pkey", table, key)


def _copy_tags() -> None:
    """SQLite cannot drop a column of a primary key."""
    op.rename_table("tag", "tag_0001")
    op.create_table(
        "tag",
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("task", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("value", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO tag (key, task, value) SELECT key, task, value FROM tag_0001 ORDER BY key, task")
    op.drop_table("tag_0001")


def _copy_bitmaps() -> None:
    op.rename_table("term", "term_0001")
    op.create_table(
        "term",
        sa.Column("span", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("term", TEXT, primary_key=True),
        sa.Column("found", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO term (span, term, found) SELECT span, term, found FROM term_0001 ORDER BY span, term")
    op.drop_table("term_0001")
