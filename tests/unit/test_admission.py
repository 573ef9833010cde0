"""Whether a task may start on a cluster, and whom the answer keeps back (pure)."""

import pytest

from tesk.places.base import ALL_ACTIVE, Demand, Denial, Load
from tesk.places.kubernetes.place import STARTING, KubernetesPlace
from tesk.places.kubernetes.start_limit import LEAST
from tesk.settings import Settings

SMALL = Demand(1, 1)
MAY_WAIT = 2
HALF_WAIT = "half of the tasks that may wait for a node do, and some ask for no more: 1 of 2 (max_waiting_tasks)"
ALL_WAIT = "as many tasks wait for a node with room as may at once: 2 (max_waiting_tasks)"


@pytest.mark.parametrize(
    ("waiting", "starting", "active", "denial"),
    [
        (0, 0, 0, None),
        (0, LEAST - 1, 7, None),
        (0, LEAST, 7, STARTING),
        (0, LEAST, 8, ALL_ACTIVE),
        (1, 0, 1, Denial(HALF_WAIT, "its like")),
        (2, LEAST, 8, Denial(ALL_WAIT, "its like")),
    ],
)
def test_a_task_starts_where_neither_waiting_nor_starting_nor_active_tasks_are_too_many(
    waiting: int, starting: int, active: int, denial: Denial | None
) -> None:
    place = KubernetesPlace(Settings(max_waiting_tasks=MAY_WAIT, max_active_tasks=8))
    for number in range(waiting):
        place._waiting_limit.waits(f"waiting-{number}", SMALL, is_told=True)
    for number in range(starting):
        place._start_limit.starts(f"starting-{number}", 1e12)
    assert place.admission(SMALL, Load(active)) == denial
