"""Migrates the database named by TESK_MIGRATE_URL to the newest schema, and ends.

A process of its own since Alembic and SQLAlchemy are needed for nothing else. `--new MESSAGE` writes a new migration
from the difference between that database and tesk.store.schema, for developers.
"""

import os
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made.attributes["url"] = os.environ["TESK_MIGRATE_URL"]
    return made


if __name__ == "__main__":
    if sys.argv[1:2] == ["--new"]:
        command.revision(config(), message=sys.argv[2], autogenerate=True)
    else:
        command.upgrade(config(), "head")
