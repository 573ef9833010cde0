"""The most that a task may ask for."""

import pytest

from tesk.server.maxima import check, maxima
from tesk.settings import Settings
from tesk.tes import Executor, InvalidTask, Resources, Task

MOST = maxima(Settings(max_cpu_cores=2, max_ram_gb=4.5))


def asks(resources: Resources | None) -> Task:
    return Task([Executor("i", ["c"])], resources=resources)


@pytest.mark.parametrize(
    "resources",
    [
        None,
        Resources(),
        Resources(cpu_cores=2, ram_gb=4.5, disk_gb=9999),
        Resources(backend_parameters={"Executor_Timeout_S": "0.5", "gpu": "2", "priority_class": "high"}),
    ],
)
def test_as_much_as_is_allowed_may_be_asked_for(resources: Resources | None) -> None:
    check(asks(resources), MOST)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (Resources(cpu_cores=2.5), "resources.cpu_cores: 2.5 is more than the 2 that this server allows"),
        (Resources(ram_gb=5), "resources.ram_gb: 5 is more than the 4.5 that this server allows"),
        *(
            (
                Resources(backend_parameters={"executor_timeout_s": value}),
                f"resources.backend_parameters.executor_timeout_s: {value!r} is not a number of seconds above 0",
            )
            for value in ("soon", "", "-1", "0", "nan", "inf")
        ),
        (
            Resources(backend_parameters={"GPU": "1.5"}),
            "resources.backend_parameters.GPU: '1.5' is not a whole number above 0",
        ),
    ],
)
def test_more_is_refused_and_names_the_field(resources: Resources, words: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        check(asks(resources), MOST)
    assert str(refused.value) == words
