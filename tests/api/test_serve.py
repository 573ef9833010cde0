"""`tesk serve` as a process: it starts, says where it answers, ends cleanly, and says in a line why it cannot start."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx
import pytest

from tesk.server.listen import CannotListen, at, listen, url
from tesk.store.lease import NUMBER
from tests.servers.cluster import until
from tests.servers.postgres import Postgres

LIMIT_S = 300.0
get, post = partial(httpx.get, timeout=LIMIT_S), partial(httpx.post, timeout=LIMIT_S)
SERVE = """
import json, sys
from tesk.server import database_limit, run
from tesk.settings import Settings
run.SHUTDOWN_LIMIT_S = database_limit.STORE_LIMIT_S = 300  # on a busy machine
run.serve(Settings(**json.loads(sys.argv[1])))
"""
HANDED_OVER = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
TASK = {"executors": [{"image": "tesk-test/absent", "command": ["true"]}]}


def arguments(data: Path, settings: Mapping[str, object]) -> list[str]:
    return ["-c", SERVE, json.dumps({"port": 0, "data": str(data), **settings})]


@contextlib.contextmanager
def started(
    command: list[str], env: Mapping[str, str] | None = None, fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        pass_fds=fds,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("server: http://"), line
    return line.removeprefix("server: ").strip()


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, check=False)


def cannot_start(command: list[str]) -> str:
    """The one line that says why."""
    done = ended(command)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_the_log_warns_of_an_old_name_of_a_setting(tmp_path: Path) -> None:
    with started(["-m", "tesk", "serve", "--data", str(tmp_path)], env={"TESK_PORT": "0"}) as process:
        address(process)
        assert process.stderr is not None
        found = next(entry for entry in map(json.loads, process.stderr) if "TESK_PORT" in entry["msg"])
    said = "TESK_PORT: is called TESK_SERVER_PORT now; the next version does not know the old name"
    assert (found["level"], found["msg"]) == ("warning", said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_answers_where_it_says_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with started(arguments(tmp_path, {})) as process:
        base = address(process)
        assert get(base + "/healthz").status_code == 200
        identifier = post(base + "/v1/tasks", json=TASK).json()["id"]
        process.send_signal(number)
        out, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors
        assert out == "", "one line is all it prints"
        for line in errors.splitlines():
            json.loads(line)
    with started(arguments(tmp_path, {})) as process:
        assert get(f"{address(process)}/v1/tasks/{identifier}").status_code == 200


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    with started(arguments(tmp_path, {})) as process:
        host, port = address(process).removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), LIMIT_S) as client:
            body = json.dumps(TASK).encode()
            head = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body))
            assert client.recv(1000).startswith(b"HTTP/1.1 100"), "the request is being read"
            process.terminate()
            client.sendall(body)
            answer = b""
            while chunk := client.recv(65_536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert process.wait(LIMIT_S) == 0


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = cannot_start(arguments(tmp_path, {"port": port}))
    assert (
        line
        == f"tesk serve: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --host or --port"
    )


def test_a_host_that_is_not_ours_is_told(tmp_path: Path) -> None:
    assert "192.0.2.1" in cannot_start(arguments(tmp_path, {"host": "192.0.2.1"}))
    assert "check the setting host" in cannot_start(arguments(tmp_path, {"host": "no.such.host.invalid"}))
    assert "check the setting host" in cannot_start(arguments(tmp_path, {"host": "a" * 300}))


def test_a_data_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file/data" in cannot_start(arguments(tmp_path / "file" / "data", {}))


@pytest.mark.parametrize("database", ["mysql://localhost/x", "sqlite:///", "nonsense", "postgresql://127.0.0.1:1/none"])
def test_a_database_that_cannot_be_used_is_told(tmp_path: Path, database: str) -> None:
    assert cannot_start(arguments(tmp_path, {"database_url": database})).startswith("tesk serve: ")


def test_a_second_server_on_the_same_sqlite_file_is_refused(tmp_path: Path) -> None:
    with started(arguments(tmp_path, {})) as process:
        address(process)
        assert "tesk.db" in cannot_start(arguments(tmp_path, {}))


def test_a_postgresql_database_has_one_server(tmp_path: Path, postgres_server: Postgres) -> None:
    settings = {"database_url": postgres_server.new_database()}
    with started(arguments(tmp_path / "one", settings)) as process:
        here = address(process)
        assert post(f"{here}/v1/tasks", json=TASK).status_code == 200
        assert "served by another tesk" in cannot_start(arguments(tmp_path / "two", settings))
        process.terminate()
        process.wait(LIMIT_S)
    database = settings["database_url"]
    until(lambda: postgres_server.psql(f"{LOCKED} true", database) == "0", what="the end of the first one's session")
    with started(arguments(tmp_path / "two", settings)) as process:
        here = address(process)
        assert len(get(f"{here}/v1/tasks").json()["tasks"]) == 1


TAKEN = "was taken by another tesk"
LEASE = "pg_stat_activity WHERE application_name = 'tesk lease' AND datname = current_database()"
LOCKED = f"""SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
WHERE datname = current_database() AND locktype = 'advisory' AND objid = {NUMBER & 0xFFFFFFFF} AND granted = """


def test_a_server_whose_lease_was_cut_takes_it_again(tmp_path: Path, postgres_server: Postgres) -> None:
    database = postgres_server.new_database()
    with started(arguments(tmp_path / "one", {"database_url": database})) as process:
        here = address(process)
        first = postgres_server.psql(f"SELECT pid FROM {LEASE}", database)
        assert postgres_server.psql(f"SELECT pg_terminate_backend({first})", database) == "t"
        another = f"{LOCKED} true AND pid <> {first}"
        until(lambda: postgres_server.psql(another, database) == "1", what="another lease")
        assert "served by another tesk" in cannot_start(arguments(tmp_path / "two", {"database_url": database}))
        assert get(f"{here}/v1/tasks").status_code == 200


def test_a_server_whose_database_another_has_taken_ends(tmp_path: Path, postgres_server: Postgres) -> None:
    database = postgres_server.new_database()
    with started(arguments(tmp_path, {"database_url": database})) as process:
        address(process)
        with postgres_server.holding(f"SELECT pg_advisory_lock({NUMBER})", database):
            until(lambda: postgres_server.psql(f"{LOCKED} false", database) == "1", what="the other one waits")
            postgres_server.psql(f"SELECT pg_terminate_backend(pid) FROM {LEASE}", database)
            _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if line.startswith("tesk serve: ") and TAKEN in line]


def test_a_refused_server_leaves_the_tables_alone(tmp_path: Path, postgres_server: Postgres) -> None:
    database = postgres_server.new_database()
    with postgres_server.holding(f"SELECT pg_advisory_lock({NUMBER})", database):
        until(lambda: postgres_server.psql(f"{LOCKED} true", database) == "1", what="the other one's lock")
        assert "served by another tesk" in cannot_start(arguments(tmp_path, {"database_url": database}))
    assert postgres_server.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == "0"


def test_a_data_folder_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "a b%20?#ü"
    with started(arguments(odd, {})) as process:
        assert get(address(process) + "/readyz").status_code in (200, 503)
        assert (odd / "tesk.db").is_file()


def test_a_restart_on_a_handed_over_socket_refuses_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as kept:
        base = f"http://127.0.0.1:{kept.getsockname()[1]}"
        command = ["-c", HANDED_OVER, str(kept.fileno()), *arguments(tmp_path, {"port": 1})]
        env = {"LISTEN_FDS": "1"}
        with started(command, env, (kept.fileno(),)) as process:
            assert address(process) == base
            identifier = post(base + "/v1/tasks", json=TASK).json()["id"]
            process.terminate()
            assert process.wait(LIMIT_S) == 0
        with socket.create_connection(kept.getsockname(), LIMIT_S) as early:
            early.sendall(
                f"GET /v1/tasks/{identifier} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            with started(command, env, (kept.fileno(),)) as process:
                address(process)
                assert early.recv(1000).startswith(b"HTTP/1.1 200 OK"), "who connects in between waits and is answered"


def test_a_socket_meant_for_another_process_is_left_alone() -> None:
    with listen("127.0.0.1", 0, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}) as own:
        assert url(own).startswith("http://127.0.0.1:")


def test_more_than_one_socket_is_told() -> None:
    with pytest.raises(CannotListen, match="exactly one"):
        listen("127.0.0.1", 0, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})


def test_ipv6_addresses_are_written_as_urls_want_them() -> None:
    assert at("::1", 8080) == "http://[::1]:8080"
    assert at("127.0.0.1", 80) == "http://127.0.0.1:80"
