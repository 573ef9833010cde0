"""The command: plan in, report out, exit status; ended by a signal; flat memory; light imports."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tesk.filer.plan import FilerSettings, InputsPlan, OutputsPlan, Plan
from tesk.tes import Input, Output
from tests.filer.faulty import faulty
from tests.filer.stores import Places, tree

COMMAND = [sys.executable, "-c", "import sys; from tesk.filer.main import main; sys.exit(main(sys.argv[1:]))"]


def command(*arguments: str, plan: Plan | bytes = b"") -> subprocess.CompletedProcess[bytes]:
    given = plan if isinstance(plan, bytes) else msgspec.json.encode(plan)
    return subprocess.run([*COMMAND, *arguments], input=given, capture_output=True)


def events(report: bytes) -> list[dict[str, Any]]:
    """All but those of progress, which tells of itself where a step takes longer."""
    found = [json.loads(line) for line in report.splitlines()]
    return [event for event in found if event["event"] != "progress"]


def test_inputs_by_standard_input_and_outputs_by_file(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    inputs = InputsPlan(str(tmp_path / "root"), [Input("/in/a", content="abc")], ["/out"], ["/out/log"])
    done = command("inputs", plan=inputs)
    typed = {"event": "types", "letters": "F"}
    assert (done.returncode, events(done.stdout), done.stderr) == (0, [typed, {"event": "done"}], b"")
    assert tree(tmp_path / "root") == {"in": None, "in/a": b"abc", "out": None, "out/log": b""}
    settings = FilerSettings(file_roots=(str(tmp_path),))
    outputs = OutputsPlan(str(tmp_path / "root"), [Output("/in/a", f"{tmp_path}/b")], settings)
    (tmp_path / "plan").write_bytes(msgspec.json.encode(outputs))
    done = command("outputs", "--plan", f"{tmp_path}/plan", f"--report={tmp_path}/report")
    assert (done.returncode, done.stdout) == (0, b"")
    pushed = {"event": "output", "url": f"{tmp_path}/b", "path": "/in/a", "size_bytes": 3}
    assert events((tmp_path / "report").read_bytes()) == [typed, pushed, {"event": "done"}]


def test_a_failed_step_exits_with_1_and_says_why(tmp_path: Path) -> None:
    done = command("inputs", plan=InputsPlan(str(tmp_path), [Input("/a", url="/etc/hostname")]))
    assert done.returncode == 1
    assert "no folder is open to tasks" in events(done.stdout)[-1]["message"]
    gone = command("inputs", plan=InputsPlan(str(tmp_path / "gone"), [Input("/a", content="x")]))
    assert gone.returncode == 1
    assert "the scratch folder" in events(gone.stdout)[-1]["message"]


@pytest.mark.parametrize(
    ("arguments", "plan", "said"),
    [
        ([], b"", "say inputs or outputs"),
        (["both"], b"", "say inputs or outputs"),
        (["inputs", "--speed"], b"", "unknown option --speed"),
        (["inputs", "--plan"], b"", "--plan needs a file"),
        (["inputs", "--plan", "/none"], b"", "the plan /none cannot be read"),
        (["inputs"], b"{", "cannot be read"),
        (["outputs"], b'{"step":"inputs","root":"/"}', "the plan is not for outputs"),
        (["inputs", "--report", "/none/r"], b'{"step":"inputs","root":"/"}', "the report cannot be written"),
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], plan: bytes, said: str) -> None:
    done = command(*arguments, plan=plan)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert done.stdout == b""


def test_help_tells_what_there_is() -> None:
    done = command("--help")
    assert done.returncode == 0
    for word in ("inputs", "outputs", "--plan", "--report", "143"):
        assert word in done.stdout.decode()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_nothing_left_behind(tmp_path: Path, number: int, status: int) -> None:
    started = socket.socketpair()

    def script(connection: socket.socket, _n: int, _h: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthe ")
        started[1].send(b"x")
        connection.recv(1)

    with faulty(script) as server:
        plan = InputsPlan(str(tmp_path), [Input("/f", url=f"{server.url}/f")], settings=FilerSettings(timeout_s=3600))
        child = subprocess.Popen([*COMMAND, "inputs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert child.stdin
            child.stdin.write(msgspec.json.encode(plan))
            child.stdin.close()
            started[0].recv(1)
            child.send_signal(number)
            assert child.wait(300) == status
            assert child.stdout
            assert events(child.stdout.read())[-1] == {"event": "error", "message": "the transfer was stopped"}
        finally:
            child.kill()
            child.wait()
            assert child.stdout
            child.stdout.close()
            for end in started:
                end.close()
    assert list(tmp_path.iterdir()) == []


IMPORTED = """
import sys, tesk.filer.main, threading
heavy = {"click", "starlette", "obstore", "ssl", "http.client", "ftplib", "asyncio", "sqlalchemy"}
print(sorted(heavy & set(sys.modules)), threading.active_count())
"""


def test_importing_loads_no_storage_library_and_starts_no_thread() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"


MIB = 1024 * 1024
LIMIT_MIB = 150
MEASURED = """
import re, sys, msgspec, threading
from tesk.filer.main import run
from tesk.filer.plan import Plan
plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
ok = run(plan, lambda event: None if type(event).__name__ == "Progress" else print(event), threading.Event())
# VmHWM, since ru_maxrss counts what the parent had at the fork as well.
print("MiB", int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
sys.exit(not ok)
"""


def peaks_mib(places: Places, url: str) -> list[int]:
    """Pushes /out to a URL and fetches it back, each in a process of its own: their peak memory."""
    settings = FilerSettings(file_roots=places.file_roots)
    plans: list[Plan] = [
        OutputsPlan(str(places.root), [Output("/out", url)], settings),
        InputsPlan(str(places.root), [Input("/in", url=url)], settings=settings),
    ]
    peaks = []
    for plan in plans:
        given = msgspec.json.encode(plan)
        done = subprocess.run([sys.executable, "-c", MEASURED], input=given, capture_output=True)
        assert done.returncode == 0, done
        peaks.append(int(done.stdout.split()[-1]))
    return peaks


def make_sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)


@pytest.mark.parametrize("scheme", ["path", "s3", "ftp", "http"])
def test_memory_is_flat_whatever_the_size(places: Places, scheme: str) -> None:
    make_sparse(places.root / "out", 300 * MIB)
    peaks = peaks_mib(places, places[scheme].url("big"))
    assert (places.root / "in").stat().st_size == 300 * MIB
    places[scheme].folder.joinpath("big").unlink()
    (places.root / "in").unlink()
    assert max(peaks) < LIMIT_MIB, peaks


@pytest.mark.parametrize("scheme", ["path", "s3", "ftp"])
def test_memory_is_bounded_over_all_files_at_once(places: Places, scheme: str) -> None:
    for n in range(12):
        make_sparse(places.root / f"out/part{n}", 8 * MIB)
    for n in range(4):
        make_sparse(places.root / f"out/large{n}", 40 * MIB)
    peaks = peaks_mib(places, places[scheme].url("many"))
    assert len(list((places.root / "in").iterdir())) == 16
    shutil.rmtree(places[scheme].folder)
    shutil.rmtree(places.root / "in")
    assert max(peaks) < LIMIT_MIB, peaks
