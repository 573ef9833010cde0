"""Alembic's migrations, shipped with the package; `python -m tesk.store.migrations` runs them."""
