"""Errors that several packages raise and catch."""


class PlaceError(RuntimeError):
    """The place where tasks run cannot work: the message says why and what to do."""


class RulesError(RuntimeError):
    """The rules cannot be used: the message says which of them, why and what to do."""
