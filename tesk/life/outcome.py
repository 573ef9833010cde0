"""How an attempt at the task, or one step of it, may come to its end before the last line of it."""

from tesk.tes import State


class End(Exception):
    """The task's end: its state, and for a system error why."""

    def __init__(self, state: State, reason: str = "") -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason


class Lost(Exception):
    """The attempt's end by a fault of the cluster, after which another may be made."""


class Unborn(Exception):
    """A pod whose program was never begun: another is to take its place."""
