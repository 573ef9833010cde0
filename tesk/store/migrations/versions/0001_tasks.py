"""Tasks, their tags, contents and logs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

IDENTIFIER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NAME = sa.text("substr(name, 1, 500)")
UNENDED, OVER = sa.text("ended IS NULL"), sa.text("ended IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "task",
        sa.Column("id", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Integer(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("submitted", sa.SmallInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger()),
        sa.Column("name", TEXT),
        sa.Column("tags", sa.LargeBinary()),
        sa.Column("warnings", sa.LargeBinary()),
        sa.Column("basic", sa.LargeBinary(), nullable=False),
        sa.Column("logs", sa.LargeBinary()),
    )
    op.create_index("task_owner", "task", ["owner", "id", "state"])
    op.create_index("task_state", "task", ["owner", "state", "id"])
    op.create_index("task_name", "task", ["owner", NAME, "id"])
    op.create_index("task_unfinished", "task", ["id"], sqlite_where=UNENDED, postgresql_where=UNENDED)
    op.create_index("task_ended", "task", ["ended"], sqlite_where=OVER, postgresql_where=OVER)
    op.create_table(
        "frontier",
        sa.Column("one", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("closed", sa.BigInteger(), nullable=False),
    )
    op.execute("INSERT INTO frontier (one, closed) VALUES (1, 0)")
    op.create_table(
        "span",
        sa.Column("number", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("unended", sa.Integer(), nullable=False),
        sa.Column("alive", sa.Integer(), nullable=False),
        sa.Column("pruned", sa.Integer(), nullable=False),
    )
    op.create_index("span_first", "span", ["first"], unique=True)
    op.create_table(
        "place",
        sa.Column("ordinal", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("task", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "term",
        sa.Column("span", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("term", TEXT, primary_key=True),
        sa.Column("found", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    for table, column in (("content", "document"), ("log", "logs")):
        op.create_table(
            table,
            sa.Column("task", IDENTIFIER, primary_key=True, autoincrement=False),
            sa.Column(column, sa.LargeBinary(), nullable=False),
        )
    op.create_table(
        "tag",
        sa.Column("owner", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("task", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("value", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("tag_value", "tag", ["owner", "key", "value", "task"])
