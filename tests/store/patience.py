"""Time limits of the store that a database on a busy machine does not keep, although all is well."""

from typing import Any, Final

from tesk.store import committer, lease, migrate, postgresql, sqlite, withdrawals

PATIENT_S: Final = 300.0
LIMITS: Final[tuple[tuple[Any, str], ...]] = (
    (committer, "CONFIRM_S"),
    (lease, "CONNECT_S"),
    (migrate, "CONNECT_S"),
    (postgresql, "CONNECT_S"),
    (postgresql, "STATEMENT_S"),
    (postgresql, "PING_S"),
    (sqlite, "PING_S"),
    (withdrawals, "NOTE_S"),
)


def be_patient() -> None:
    """For the life of this process."""
    for module, name in LIMITS:
        setattr(module, name, PATIENT_S)
