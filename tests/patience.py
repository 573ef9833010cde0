"""A busy machine is no failure: a server in this process waits for minutes where it would give up after seconds.

Tests of these limits set their own.
"""

from typing import Final

from tesk.dispatch import dispatcher
from tesk.server import body, budget, connection, database_limit, log, run, service
from tesk.server.people import edge, passwords
from tesk.store import postgresql, sqlite

PATIENCE_S: Final = 600
LIMITS: Final = (
    (dispatcher, "READY_TIMEOUT_S"),
    (sqlite, "PING_S"),
    (postgresql, "PING_S"),
    (service, "READY_LIMIT_S"),
    (database_limit, "STORE_LIMIT_S"),
    (body, "BODY_LIMIT_S"),
    (budget, "WAIT_S"),
    (connection, "HEAD_LIMIT_S"),
    (connection, "UNREAD_LIMIT_S"),
    (run, "KEEP_ALIVE_S"),
    (log, "CLOSE_LIMIT_S"),
    (edge, "CHECK_LIMIT_S"),
    (passwords, "WAIT_LIMIT_S"),
)


def begin() -> None:
    for module, name in LIMITS:
        assert hasattr(module, name)
        setattr(module, name, PATIENCE_S)
