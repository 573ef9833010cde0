"""The socket of the Podman that tesk starts itself, below a data folder whose path is too long for any socket."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from scripts.demo_local import engine_socket
from tesk.places.local.socket import LONGEST_PATH, answers, clear, prepare
from tests.engines.held import held, let_go
from tests.engines.places import LocalPlace, load_images
from tests.engines.running import sh, started


@pytest.fixture
def long(tmp_path: Path) -> Path:
    return tmp_path / ("long" * 25)


def test_a_socket_has_a_short_path_however_long_that_of_its_folder_is(long: Path) -> None:
    path, _, configuration = prepare(long / "run")
    assert configuration.parent == long / "run"
    assert len(os.fsencode(path)) <= LONGEST_PATH
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert answers((long / "run/podman.sock").resolve())
    assert prepare(long / "run")[0] == path, "a client that knows the path would lose its engine"
    assert not path.exists()
    path.parent.chmod(0o755)
    other = prepare(long / "run")[0]
    assert other != path, "others can reach it there"
    clear(long / "run")
    assert not other.parent.exists()
    assert not (long / "run/podman.sock").is_symlink()
    path.parent.rmdir()


def test_the_socket_s_folder_is_the_user_s_own_where_there_is_one(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runtime, parent in ((tmp_path, tmp_path), (tmp_path / "absent", Path("/tmp")), (long, Path("/tmp"))):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        assert prepare(long / "run")[0].parent.parent == parent
        clear(long / "run")


def test_a_short_path_stays_where_it_is(tmp_path: Path) -> None:
    assert prepare(tmp_path / "run")[0] == tmp_path / "run/podman.sock"
    clear(tmp_path / "run")


def test_a_process_whose_parent_had_ended_before_it_could_say_so_ends_too() -> None:
    """For want of the moment between its start and its wish to end with its parent, it is told of another parent."""
    script = "import os; from tesk.places.local.socket import die_with_parent as wish; wish(parent={}); print('lives')"
    for parent, code, said in (("os.getppid()", 0, "lives\n"), ("os.getpid()", -signal.SIGKILL, "")):
        ended = subprocess.run([sys.executable, "-c", script.format(parent)], stdout=subprocess.PIPE, text=True)
        assert (ended.returncode, ended.stdout) == (code, said)


async def test_tasks_run_and_survive_their_podman_below_a_long_path(long: Path) -> None:
    data = long / "data"
    data.mkdir(parents=True)
    settings = LocalPlace("podman", data / "run/podman.sock").settings(data)
    async with started(msgspec.structs.replace(settings, engine_socket="podman")) as tesk:
        async with asyncio.timeout(180):
            while await tesk.dispatcher.ready() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        path = (data / "run/podman.sock").resolve()
        assert answers(engine_socket(long))
        await load_images(path)
        task_id = await held(tesk, sh("cat /work/ran"))
        tesk.engine._podman.kill()  # type: ignore[attr-defined]
        let_go(tesk, task_id)
        task = await tesk.ended(task_id)
        assert task["state"] == "COMPLETE", task["logs"]
        assert task["logs"][0]["logs"][1]["stdout"] == "ran\n"
        assert await LocalPlace("podman", path).leftovers(settings) == []
    assert not path.parent.exists()
