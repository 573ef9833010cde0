"""The audit log: who signed in, who made, cancelled or revoked what. One line of JSON each, whatever the log's level.

A line never holds a secret: no credential, no part of a document.
"""

from tesk.identity import Identity
from tesk.server.log import Log


def note(log: Log | None, what: str, identity: Identity, **facts: str | int) -> None:
    """`what`: signed in, not let in, refused, created, cancelled …; `facts`: to which thing."""
    if log is not None:
        log.audit(what=what, user=identity.user, **facts)
