"""The output of many executors: one bound for all of them, in every place."""

from tesk.life.log_bound import TASK_BYTES, TOO_LONG
from tests.engines.running import Tesk, sh


async def test_of_many_executors_that_write_much_the_last_are_shown(tesk: Tesk) -> None:
    write = "head -c 70000 /dev/zero | tr '\\0' x"
    task = await tesk.run(executors=[sh(f"{write}; {write} >&2")] * 6)
    assert task["state"] == "COMPLETE"
    (log,) = task["logs"]
    sizes = [len(entry["stdout"]) + len(entry["stderr"]) for entry in log["logs"]]
    assert sizes == [0, 0, *[2 * 65536] * 4]
    assert sum(sizes) == TASK_BYTES
    assert log["system_logs"] == [TOO_LONG]
