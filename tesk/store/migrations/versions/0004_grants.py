"""What a task was given of the rules' entries. Tasks that are there were given none."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("grants", sa.LargeBinary()))
