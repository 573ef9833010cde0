"""The runner of a task's pod with real shims beside it: what happens to the task, and what is told of it."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tesk.tes import State
from tests.pod.pods import NAME, WORD, Pod, Server
from tests.shim.containers import NOBODY, PATIENCE_S, until

MakePod = Callable[..., Pod]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def pods(tmp_path: Path, server: Server) -> Iterator[MakePod]:
    """Makes pods of documents, whose executors are given by their scripts."""
    made: list[Pod] = []

    def make(*scripts: str | dict[str, Any], report: str = server.address, settings: Any = None, **more: Any) -> Pod:
        executors = [
            {"image": "busybox", **({"command": ["sh", "-c", each]} if isinstance(each, str) else each)}
            for each in scripts
        ]
        folder = tmp_path / str(len(made))
        folder.mkdir()
        tmp_path.chmod(0o755)
        made.append(Pod(folder, report, {"executors": executors, **more}, **(settings or {})))
        return made[-1]

    yield make
    for pod in made:
        pod.close()


def has_told(server: Server, state: State) -> bool:
    return any(record.state is state for record in server.records)


def test_a_hello_runs_and_its_end_is_told(pods: MakePod, server: Server) -> None:
    pod = pods("echo hello; echo oops >&2")
    pod.start()
    outcome = pod.ended()
    assert (outcome.code, pod.end_of(0), outcome.stderr) == (0, 0, "")
    assert outcome.record is not None
    assert outcome.record == outcome.last_words == server.records[-1]
    assert outcome.record.state is State.COMPLETE
    (entry,) = outcome.record.now.log.logs
    assert (entry.exit_code, entry.stdout, entry.stderr) == (0, "hello\n", "oops\n")
    assert outcome.log[0] == {"executor": 0}
    assert sorted(outcome.log[1:], key=str) == [{"stderr": "oops\n"}, {"stdout": "hello\n"}]
    assert set(server.requests) == {(f"/{NAME}", f"Bearer {WORD}")}


def test_a_runner_takes_little_memory_while_a_program_runs(pods: MakePod) -> None:
    pod = pods(
        "cat /mnt/i/in; while ! [ -e /mnt/i/go ]; do sleep 0.1; done", inputs=[{"path": "/mnt/i/in", "content": "x"}]
    )
    pod.start()
    pod.until_written("x")
    (most,) = re.findall(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pod.runner.pid}/status").read_text())
    (pod.scratch / "mnt/i/go").touch()
    assert pod.ended().exit_codes == [0]
    assert int(most) <= 20 * 1024


def test_executors_run_in_order_until_one_fails(pods: MakePod) -> None:
    first = {"command": ["sh", "-c", "echo a >> /mnt/v/x; exit 3"], "ignore_error": True}
    pod = pods(first, "cat /mnt/v/x; exit 4", "echo never", volumes=["/mnt/v"])
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.record.state, outcome.exit_codes) == (State.EXECUTOR_ERROR, [3, 4])
    assert outcome.record.now.log.logs[1].stdout == "a\n"
    assert outcome.record.now.log.system_logs == [
        "executor 0 (busybox): exit code 3, ignored", "executor 1 (busybox): exit code 4",
    ]  # fmt: skip
    assert outcome.log == [{"executor": 0}, {"executor": 1}, {"stdout": "a\n"}]
    assert [pod.end_of(n) for n in range(3)] == [3, 4, 143]


def test_the_order_in_which_containers_come_does_not_matter(pods: MakePod) -> None:
    pod = pods("echo 1 >> /mnt/v/x", "echo 2 >> /mnt/v/x", "cat /mnt/v/x", volumes=["/mnt/v"])
    for n in (2, 1):
        pod.start_executor(n)
        until((pod.control(n) / "turn").is_fifo)
    pod.start_runner()
    until(lambda: {"executor": 0} in pod.log())
    pod.start_executor(0)
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.exit_codes, outcome.record.now.log.logs[2].stdout) == ([0, 0, 0], "1\n2\n")


def test_outputs_are_pushed_after_a_failed_executor_too(pods: MakePod, tmp_path: Path) -> None:
    store = tmp_path / "0/store"
    pod = pods(
        "cat /data/in /etc/image-file > /data/out; echo log > /mnt/o/log; exit 5",
        inputs=[{"path": "/data/in", "content": "given\n"}],
        outputs=[
            {"path": "/data/out", "url": f"file://{store}/out"},
            {"path": "/mnt/o/log", "url": f"file://{store}/log"},
            {"path": "/mnt/o/missing", "url": f"file://{store}/missing"},
        ],
    )
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    log = outcome.record.now.log
    assert (outcome.record.state, outcome.exit_codes) == (State.EXECUTOR_ERROR, [5])
    assert (store / "log").read_text() == "log\n"
    assert (store / "out").read_text().startswith("given\n")
    assert {each.path for each in log.outputs} == {"/data/out", "/mnt/o/log"}
    assert "missing" in "".join(log.system_logs or [])
    assert outcome.record.types.outputs == "FF?"


def test_a_folder_that_is_mounted_whole_is_filled_though_it_is_the_kubelets(pods: MakePod, tmp_path: Path) -> None:
    store = tmp_path / "0/store"
    pod = pods(
        "cat /mnt/d/sub/x; mv /mnt/d/sub/x /mnt/d/y",
        inputs=[{"path": "/mnt/d", "url": f"file://{store}/given", "type": "DIRECTORY"}],
        outputs=[{"path": "/mnt/d", "url": f"file://{store}/made", "type": "DIRECTORY"}],
    )
    (store / "given/sub").mkdir(parents=True)
    (store / "given/sub/x").write_text("given\n")
    for n in range(len(pod.task.executors)):
        pod.start_executor(n)
    pod.start_runner()
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.record.state, (store / "made/y").read_text()) == (State.COMPLETE, "given\n")


def test_inputs_that_cannot_be_had_end_the_task(pods: MakePod, tmp_path: Path) -> None:
    pod = pods("echo never", inputs=[{"path": "/mnt/i/in", "url": f"file://{tmp_path}/0/store/none"}])
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.record.state, outcome.exit_codes) == (State.SYSTEM_ERROR, [])
    assert "store/none" in "".join(outcome.record.now.log.system_logs or [])
    assert pod.end_of(0) == 143


def test_a_program_past_its_time_limit_is_told_to_end_and_then_killed(pods: MakePod, server: Server) -> None:
    script = "trap 'echo asked' TERM; while :; do sleep 0.1; done"
    pod = pods(script, "echo never", settings={"executor_timeout_s": 15.0, "grace_s": 15.0})
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.record.state, outcome.exit_codes) == (State.EXECUTOR_ERROR, [137])
    assert outcome.record.now.log.logs[0].stdout == "asked\n"
    assert (outcome.record.now.log.system_logs or [])[0] == "executor 0 (busybox): ended after its time limit of 15 s"
    assert has_told(server, State.RUNNING)


def test_the_end_of_a_runner_ends_all_programs_at_once(pods: MakePod) -> None:
    pod = pods("trap '' TERM; echo begun; sleep 1000", "echo never")
    pod.start()
    pod.until_written("begun")
    pod.until_held(1)
    pod.runner.kill()
    assert pod.end_of(0) == 137
    assert pod.end_of(1) == 143


def test_an_executor_whose_shim_is_killed_too_was_killed(pods: MakePod) -> None:
    """As by the kernel, which kills all of a container that is out of memory."""
    pod = pods("echo begun; sleep 1000")
    pod.start()
    pod.until_written("begun")
    os.kill(pod.shim(0), signal.SIGKILL)
    outcome = pod.ended()
    assert outcome.record is not None
    (entry,) = outcome.record.now.log.logs
    assert (outcome.record.state, entry.exit_code, entry.stdout) == (State.EXECUTOR_ERROR, 137, "begun\n")
    assert (outcome.record.now.log.system_logs or [])[0] == (
        "executor 0 (busybox): it was killed with its whole container"
    )


def test_a_container_that_is_killed_with_its_pod_is_no_end_of_the_task(pods: MakePod, server: Server) -> None:
    pod = pods("echo begun; sleep 1000")
    pod.start()
    pod.until_written("begun")
    until(lambda: has_told(server, State.RUNNING))
    pod.runner.send_signal(signal.SIGSTOP)  # since it waits for its own end for a second only
    os.kill(pod.shim(0), signal.SIGKILL)
    pod.shims[0].wait(PATIENCE_S)
    pod.runner.terminate()
    pod.runner.send_signal(signal.SIGCONT)
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.code, outcome.record.state, outcome.exit_codes) == (143, State.RUNNING, [])


def test_a_program_that_is_out_of_memory_is_told_so(pods: MakePod) -> None:
    pod = pods("exit 137", resources={"ram_gb": 0.5})
    pod.start_runner()
    pod.make_root(0)
    (pod.folder / "root-0/sys/fs/cgroup/memory.events").write_text("oom 1\noom_kill 1\n")
    pod.start_executor(0)
    outcome = pod.ended()
    assert outcome.record is not None
    lines = outcome.record.now.log.system_logs or []
    assert lines[0] == "executor 0 (busybox): out of memory, limit 512 MiB"


def test_a_pod_that_ends_before_its_task_is_no_end_of_the_task(pods: MakePod, server: Server) -> None:
    """What the program writes at last is in the log."""
    pod = pods("trap 'echo last; exit 7' TERM; echo begun; while :; do sleep 0.1; done", "echo never")
    pod.start()
    pod.until_written("begun")
    until(lambda: has_told(server, State.RUNNING))
    until((pod.control(1) / "turn").is_fifo)
    pod.terminate()
    outcome = pod.ended()
    assert (outcome.code, outcome.last_words, pod.end_of(0), pod.end_of(1)) == (143, None, 7, 143)
    assert outcome.record is not None
    assert outcome.record == server.records[-1]
    assert (outcome.record.state, outcome.exit_codes) == (State.RUNNING, [])
    assert "".join(line.get("stdout", "") for line in outcome.log) == "begun\nlast\n"


def test_a_transfer_is_stopped_with_its_pod(pods: MakePod) -> None:
    """It waits for a storage that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        pod = pods("echo never", inputs=[{"path": "/mnt/i/in", "url": url}])
        pod.start()
        silent.accept()
        pod.runner.terminate()
        assert pod.ended().code == 143
        assert pod.end_of(0) == 143


def test_a_server_is_told_as_soon_as_it_takes_it(pods: MakePod) -> None:
    server = Server(503, 404, 0, 401)
    try:
        pod = pods("echo hello", report=server.address)
        pod.start()
        outcome = pod.ended()
        assert (outcome.code, server.records[-1]) == (0, outcome.record)
        until(lambda: len(server.requests) == len(server.records) + 4)
    finally:
        server.close()


def test_without_a_server_the_end_is_in_the_log(pods: MakePod) -> None:
    pod = pods("echo hello", report="")
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.code, outcome.record.state, outcome.last_words) == (0, State.COMPLETE, outcome.record)


@pytest.mark.parametrize(("count", "most_bytes"), [(1, 4000), (7, 12 * 1024 // 8)])
def test_last_words_have_less_output_where_there_is_no_room_for_more(
    pods: MakePod, count: int, most_bytes: int
) -> None:
    """All containers of a pod share what the kubelet keeps of their last words."""
    scripts = ["busybox awk 'BEGIN { for (n = 0; n < 9000; n++) print rand() }'"] * count
    pod = pods(*scripts)
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    assert outcome.last_words is not None
    whole, short = ([str(log.stdout) for log in each.now.log.logs] for each in (outcome.record, outcome.last_words))
    assert (outcome.last_words.state, len(short)) == (State.COMPLETE, count)
    assert all(len(a) > 50_000 and a.endswith(b) for a, b in zip(whole, short, strict=True))
    assert pod.last_words.stat().st_size <= most_bytes


def test_output_comes_into_the_log_while_the_program_runs(pods: MakePod) -> None:
    pod = pods(
        "echo first", "echo second; while ! [ -e /mnt/v/go ]; do sleep 0.1; done; echo third", volumes=["/mnt/v"]
    )
    pod.start()
    until(lambda: {"stdout": "second\n"} in pod.log())
    (pod.scratch / "mnt/v/go").touch()
    lines = [{"executor": 0}, {"stdout": "first\n"}, {"executor": 1}, {"stdout": "second\n"}, {"stdout": "third\n"}]
    assert pod.ended().log == lines


def test_streams_that_the_task_names_are_followed_where_they_are(pods: MakePod, tmp_path: Path) -> None:
    command = ["sh", "-c", "cat; echo oops >&2"]
    pod = pods(
        {"command": command, "stdin": "/data/in", "stdout": "/mnt/o/out"},
        inputs=[{"path": "/data/in", "content": "given\n"}],
        outputs=[{"path": "/mnt/o/out", "url": f"file://{tmp_path}/0/store/out"}],
    )
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    (entry,) = outcome.record.now.log.logs
    assert (entry.exit_code, entry.stdout, entry.stderr) == (0, "given\n", "oops\n")
    assert (pod.store / "out").read_text() == "given\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_working_directory_that_cannot_be_made_is_named(pods: MakePod) -> None:
    pod = pods({"command": ["true"], "workdir": "/none/here"})
    pod.start_runner()
    pod.start_executor(0, user=NOBODY)
    outcome = pod.ended()
    assert outcome.record is not None
    assert outcome.record.state is State.SYSTEM_ERROR
    assert "the image lacks its working directory /none/here" in (outcome.record.now.log.system_logs or [])[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"inputs": [{"path": "/data/in", "content": "x"}]}, "could not copy /.tesk/files/data/in to /data/in"),
        ({"outputs": [{"path": "/data/out", "url": "file:///out"}]}, "could not make the folder of /data/out"),
    ],
)
def test_files_in_a_folder_that_the_image_s_user_cannot_make_are_an_error(
    pods: MakePod, files: dict[str, Any], words: str
) -> None:
    pod = pods("echo never", **files)
    pod.start_runner()
    pod.start_executor(0, user=NOBODY)
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.record.state, outcome.exit_codes) == (State.SYSTEM_ERROR, [])
    (line,) = outcome.record.now.log.system_logs or []
    assert "executor 0 (busybox): its files could not be copied into its container" in line
    assert words in line


@pytest.mark.parametrize(("storage_class", "left"), [("", ["v/a"]), ("fast", [])])
def test_a_volume_that_outlives_its_pod_is_emptied(
    pods: MakePod, tmp_path: Path, storage_class: str, left: list[str]
) -> None:
    outputs = [{"path": "/mnt/v/a", "url": f"file://{tmp_path}/0/store/a"}]
    pod = pods("echo x > /mnt/v/a", outputs=outputs, settings={"storage_class": storage_class})
    pod.start()
    assert pod.ended().exit_codes == [0]
    mounted = pod.scratch / "mnt"
    assert [str(each.relative_to(mounted)) for each in mounted.rglob("*") if each.is_file()] == left


LIES = """
cd /.tesk/control
rm -f started ended oom terminated
ln -s /etc/image-file ended
mkfifo started turn oom; mkdir terminated
echo out
sleep 0.3
rm ended; echo 0 > ended
while :; do sleep 0.1; done
"""


def test_a_program_that_lies_in_its_control_folder_deceives_nobody(pods: MakePod) -> None:
    """It says that it has ended, and runs on: the next executor has to wait for its real end."""
    pod = pods(LIES, "echo never", settings={"executor_timeout_s": 15.0, "grace_s": 60.0})
    pod.start()
    outcome = pod.ended()
    assert outcome.record is not None
    assert (outcome.record.state, outcome.exit_codes) == (State.EXECUTOR_ERROR, [143])
    assert outcome.log == [{"executor": 0}, {"stdout": "out\n"}]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.write_text("G"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
    ],
    ids=["folder", "file", "link", "pipe"],
)
def test_what_an_image_leaves_in_place_of_the_pipe_is_not_taken_for_it(
    pods: MakePod, make: Callable[[Path], object]
) -> None:
    """An entry point of the image may run before the shim."""
    pod = pods("echo ran")
    pod.control(0).mkdir()
    pod.control(0).chmod(0o777)
    make(pod.control(0) / "turn")
    pod.start_runner()
    until(lambda: {"executor": 0} in pod.log())
    pod.start_executor(0)
    assert pod.ended().exit_codes == [0]


def test_a_flood_of_files_in_the_control_folder_keeps_the_runner_from_nothing(pods: MakePod) -> None:
    flood = "cd /.tesk/control; (while :; do : > a; mv a b; rm b; done) & echo out; sleep 2; exit 6"
    pod = pods(flood)
    pod.start()
    until(lambda: {"stdout": "out\n"} in pod.log())
    outcome = pod.ended()
    assert outcome.exit_codes == [6]


def test_a_program_that_is_told_to_end_while_its_pod_lives_has_ended(pods: MakePod) -> None:
    pod = pods("trap 'exit 9' TERM; echo begun; while :; do sleep 0.1; done")
    pod.start()
    pod.until_written("begun")
    os.kill(pod.shim(0), signal.SIGTERM)
    assert pod.ended().exit_codes == [9]
