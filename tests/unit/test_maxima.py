"""The most that a task may ask for."""

import pytest

from tesk.server.maxima import check, maxima
from tesk.settings import Settings
from tesk.tes import Executor, Input, InvalidTask, Resources, Task

MOST = maxima(Settings(max_cpu_cores=2, max_ram_gb=4.5, max_files=3))


def asks(resources: Resources | None) -> Task:
    return Task([Executor("i", ["c"])], resources=resources)


@pytest.mark.parametrize(
    "resources",
    [
        None,
        Resources(),
        Resources(cpu_cores=2, ram_gb=4.5, disk_gb=9999),
        Resources(backend_parameters={"Executor_Timeout_S": "0.5", "gpu": "2", "priority_class": "high"}),
        Resources(backend_parameters={"EntryPoint": "image", "shm_size": "1.5g"}),
        Resources(backend_parameters={"service_account": "", "runtime_class": "a.b-c", "Node_Selector.pool": "a_B.c"}),
    ],
)
def test_as_much_as_is_allowed_may_be_asked_for(resources: Resources | None) -> None:
    check(asks(resources), MOST)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (
            Resources(cpu_cores=2.5),
            "resources.cpu_cores: 2.5 is more than the 2 that this server allows (setting max_cpu_cores)",
        ),
        (Resources(ram_gb=5), "resources.ram_gb: 5 is more than the 4.5 that this server allows (setting max_ram_gb)"),
        *(
            (
                Resources(backend_parameters={"executor_timeout_s": value}),
                f"resources.backend_parameters.executor_timeout_s: {value!r} is not a number of seconds above 0",
            )
            for value in ("soon", "", "-1", "0", "0.0", "nan", "inf", "1_0", " 5", "5\n", "٣", "1e400", "9" * 10, "+5")
        ),
        *(
            (
                Resources(backend_parameters={"GPU": value}),
                f"resources.backend_parameters.GPU: {value!r} is not a whole number above 0",
            )
            for value in ("1.5", "1_0", "0", "00", " 1", "1 ", "٣", "²", "1Gi", "9" * 20)
        ),
        *(
            (
                Resources(backend_parameters={name: value}),
                f"resources.backend_parameters.{name}: {value!r} is not the name of a Kubernetes object",
            )
            for name in ("priority_class", "runtime_class", "service_account")
            for value in ("High", "a/b", "-a", "a_b", "a..b", "a\n", "a" * 64)
        ),
        (
            Resources(backend_parameters={"entrypoint": "/bin/sh"}),
            "resources.backend_parameters.entrypoint: '/bin/sh' is not the word image",
        ),
        (
            Resources(backend_parameters={"shm_size": "0g"}),
            "resources.backend_parameters.shm_size: '0g' is not a size such as 512m or 2g, above 0",
        ),
        (
            Resources(backend_parameters={"node_selector.pool": "a b"}),
            "resources.backend_parameters.node_selector.pool: 'a b' is not the value of a Kubernetes label",
        ),
    ],
)
def test_more_is_refused_and_names_the_field(resources: Resources, words: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        check(asks(resources), MOST)
    assert str(refused.value) == words


def test_a_task_may_have_so_many_files_and_no_more() -> None:
    inputs = [Input(f"/in/{n}", content="x") for n in range(4)]
    check(Task([Executor("i", ["c"])], inputs=inputs[:3]), MOST)
    with pytest.raises(InvalidTask) as refused:
        check(Task([Executor("i", ["c"])], inputs=inputs), MOST)
    assert str(refused.value) == "inputs: 4 is more than the 3 that this server allows (setting max_files)"
