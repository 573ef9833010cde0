"""The filer that a runner forks: whatever becomes of it, the runner says so."""

import time

import pytest

from tesk.filer.plan import InputsPlan, Plan
from tesk.life.facts import TaskStep
from tesk.life.steps import FilerEnded
from tesk.pod import child_filer
from tesk.pod.child_filer import FilerStep
from tesk.tes import Input


def test_a_filer_that_uses_up_its_memory_says_so_and_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it the kernel that ends it, the runner would end with it (cgroup v2, memory.oom.group)."""
    monkeypatch.setattr(child_filer, "MEMORY_BYTES", 1024 * 1024)

    def plan() -> Plan:
        return InputsPlan("/nowhere", [Input("/in", content="x")] * 300_000)

    step = FilerStep(TaskStep("inputs"), plan, empties=False)
    step.start()
    while not isinstance(seen := step.see(), FilerEnded):
        time.sleep(0.01)
    assert seen.transfer.verdict.startswith("the filer used up its memory, ")
