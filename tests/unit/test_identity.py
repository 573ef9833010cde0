"""Whose a new task is (pure). Who sees and ends whose is a table over HTTP: tests/people/test_isolation.py."""

import pytest

from tesk.identity import EVERYBODY, Identity, Owner

ANN = Identity(user="ann", groups=frozenset({"lab", "other"}), default_group="lab")


@pytest.mark.parametrize(
    ("identity", "group", "owner"),
    [
        (ANN, None, Owner("ann", "lab")),
        (ANN, "other", Owner("ann", "other")),
        (ANN, "", Owner("ann")),
        (ANN, "Lab", None),
        (ANN, "third", None),
        (Identity(user="ben"), None, Owner("ben")),
        (Identity(user="root", is_admin=True), "third", Owner("root", "third")),
        (EVERYBODY, "lab", Owner()),
        (EVERYBODY, None, Owner()),
    ],
)
def test_a_new_task_is_its_makers_for_the_group_that_is_asked_for(
    identity: Identity, group: str | None, owner: Owner | None
) -> None:
    assert identity.owner(group) == owner
