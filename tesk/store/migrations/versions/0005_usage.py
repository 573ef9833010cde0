"""What users and groups used, by month. Tasks that ended before are not counted."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
GROUPED = sa.text("owner_group <> 0")


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("month", TEXT, primary_key=True),
        sa.Column("owner", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("owner_group", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("lane", sa.SmallInteger(), primary_key=True, autoincrement=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("tasks", "core_ms", "ram_gib_ms", "gpu_ms", "bytes_out")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "usage_owner_group", "usage", ["month", "owner_group"], sqlite_where=GROUPED, postgresql_where=GROUPED
    )
