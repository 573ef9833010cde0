"""Defaults of the fields that are settings, for what travels to the processes of a task.

The declaration (tesk/settings) is loaded only where a field is absent: those processes get every field and start fast.
"""

from typing import Any

import msgspec


def declared(name: str) -> Any:
    """The default of a field: that of the setting of this name."""

    def default() -> Any:
        from tesk.settings import Settings

        return getattr(Settings(), name)

    return msgspec.field(default_factory=default)
