"""Errors that several packages raise and catch."""


class PlaceError(RuntimeError):
    """The place where tasks run cannot work: the message says why and what to do."""
