"""Errors that several packages raise and catch."""


class PlaceError(RuntimeError):
    """The place where tasks run cannot work: the message says why and what to do."""


class NotAllowed(Exception):
    """The rules do not allow a task: the message says why and what to do, `field` what of the document it is."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class RulesError(RuntimeError):
    """The rules cannot be used: the message says which of them, why and what to do."""
