"""Where tasks run: the engines behind one protocol, chosen by the setting `engine`."""

from tesk.engines.base import Engine
from tesk.settings import Settings


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings name, not yet opened; what it needs is imported when it is opened."""
    from tesk.engines.local.engine import LocalEngine

    return LocalEngine(settings)
