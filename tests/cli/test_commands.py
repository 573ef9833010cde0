"""The commands as a user runs them: a real server, real containers, real pipes and terminals."""

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tesk.cli import client as client_module
from tesk.cli.client import TesClient
from tests.cli.conftest import TESK, Done, Server, Tesk
from tests.servers.containers import IMAGE

SHELL = ("--image", IMAGE, "--", "sh", "-c")


def fails(done: Done, code: int, said: str) -> None:
    """The command ended with that code and one line on stderr that says so."""
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


class TestRun:
    def test_the_commands_output_and_exit_code_are_its_own(self, tesk: Tesk) -> None:
        done = tesk("run", *SHELL, "echo out; echo err >&2; exit 3")
        assert (done.returncode, done.stdout) == (3, "out\n")
        assert "err\n" in done.stderr
        assert "EXECUTOR_ERROR" in done.stderr

    def test_states_go_to_stderr_unless_quiet(self, tesk: Tesk) -> None:
        assert "COMPLETE" in tesk("run", *SHELL, "true").stderr
        done = tesk("run", "--quiet", *SHELL, "true")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_inputs_arrive_and_outputs_leave(self, tesk: Tesk, server: Server, tmp_path: Path) -> None:
        (server.shared / "in.txt").write_text("shared\n")
        (tmp_path / "local.txt").write_text("local\n")
        done = tesk(
            "run", "--input", f"{server.shared}/in.txt=/in/a", "--input", f"@{tmp_path}/local.txt=/in/b",
            "--content", "text\n=/in/c", "--output", f"/out/*.txt=file://{server.shared}/", "--env", "END=env",
            "--workdir", "/out", "--volume", "/scratch",
            *SHELL, "cat /in/a /in/b /in/c >all.txt; echo $END >>all.txt; touch /scratch/x",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (server.shared / "all.txt").read_text() == "shared\nlocal\ntext\nenv\n"

    def test_the_streams_can_be_files_of_the_container(self, tesk: Tesk, server: Server) -> None:
        done = tesk(
            "run", "--content", "in=/s/in", "--stdin", "/s/in", "--stdout", "/s/out", "--stderr", "/s/err",
            "--output", f"/s/out=file://{server.shared}/out", "--output", f"/s/err=file://{server.shared}/err",
            *SHELL, "cat; echo problem >&2",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (server.shared / "out").read_text() == "in"
        assert (server.shared / "err").read_text() == "problem\n"

    def test_a_failure_that_is_not_the_commands_is_125_with_its_reason(self, tesk: Tesk, server: Server) -> None:
        done = tesk("run", "--input", f"file://{server.shared}/absent=/in/a", *SHELL, "true")
        assert done.returncode == 125
        assert "SYSTEM_ERROR" in done.stderr
        assert "absent" in done.stderr

    def test_flags_behind_the_command_are_the_commands(self, tesk: Tesk) -> None:
        assert tesk("run", "--image", IMAGE, "echo", "-n", "--name", "x").stdout == "--name x"

    def test_errors_can_be_ignored(self, tesk: Tesk) -> None:
        assert tesk("run", "--ignore-error", *SHELL, "exit 3").returncode == 0

    def test_json_prints_the_whole_task_instead(self, tesk: Tesk) -> None:
        done = tesk("run", "--json", "--name", "n", "--tag", "a=b", "--cpu", "0.5", "--ram", "0.1", *SHELL, "echo x")
        task = json.loads(done.stdout)
        assert (task["state"], task["name"], task["tags"]) == ("COMPLETE", "n", {"a": "b"})
        assert task["logs"][0]["logs"][0]["stdout"] == "x\n"
        assert (task["resources"]["cpu_cores"], task["resources"]["ram_gb"]) == (0.5, 0.1)

    def test_detached_it_prints_the_id_alone(self, tesk: Tesk) -> None:
        done = tesk("run", "--detach", *SHELL, "exit 3")
        assert (done.returncode, done.stderr) == (0, "")
        waited = tesk("wait", done.stdout.strip())
        assert waited.returncode == 1
        assert json.loads(waited.stdout) == [{"id": done.stdout.strip(), "state": "EXECUTOR_ERROR"}]

    def test_an_interrupt_ends_the_waiting_and_not_the_task(self, tesk: Tesk, server: Server) -> None:
        command = [*TESK, "run", "--server", server.url, *SHELL, "sleep 1800"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            task_id = process.stderr.readline().split()[0]
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
            assert process.wait(300) == 130
        assert f"tesk cancel {task_id}" in said
        assert json.loads(tesk("get", task_id).stdout)["state"] in ("QUEUED", "INITIALIZING", "RUNNING")
        assert tesk("cancel", task_id).returncode == 0
        assert json.loads(tesk("wait", task_id).stdout)[0]["state"] == "CANCELED"


class TestTasks:
    def test_a_document_is_created_from_a_file_or_from_stdin(self, tesk: Tesk, tmp_path: Path) -> None:
        document = tesk("run", "--dry-run", *SHELL, "true").stdout
        (tmp_path / "task.json").write_text(document)
        created = [tesk("create", str(tmp_path / "task.json")), tesk("create", "-", stdin=document)]
        assert tesk("wait", *(done.stdout.strip() for done in created)).returncode == 0

    def test_in_a_pipe_get_prints_one_document_or_an_array(self, tesk: Tesk) -> None:
        task_id = tesk("run", "--detach", *SHELL, "true").stdout.strip()
        assert json.loads(tesk("get", task_id).stdout)["id"] == task_id
        assert set(json.loads(tesk("get", "--view", "minimal", task_id).stdout)) == {"id", "state"}
        assert [task["id"] for task in json.loads(tesk("get", task_id, task_id).stdout)] == [task_id, task_id]

    def test_lists_are_filtered(self, tesk: Tesk) -> None:
        mark = uuid.uuid4().hex
        ids = [
            tesk("run", "--detach", "--name", f"{mark}-{n}", "--tag", f"mark={mark}", "--tag", f"n={n}", *SHELL, "true")
            .stdout.strip()
            for n in range(3)
        ]  # fmt: skip
        assert tesk("wait", "-q", *ids).returncode == 0

        def listed(*filters: str) -> list[str]:
            return [task["id"] for task in json.loads(tesk("list", *filters).stdout)]

        assert listed("--tag", f"mark={mark}") == ids[::-1]
        assert listed("--tag", f"mark={mark}", "--limit", "2") == ids[:0:-1]
        assert listed("--tag", f"mark={mark}", "--tag", "n=1") == [ids[1]]
        assert listed("--name", f"{mark}-2") == [ids[2]]
        assert listed("--tag", f"mark={mark}", "--state", "canceled") == []

    def test_a_list_goes_on_over_pages(self, tesk: Tesk, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        mark = uuid.uuid4().hex
        document = tesk("run", "--dry-run", "--tag", f"mark={mark}", *SHELL, "true").stdout.encode()
        monkeypatch.setattr(client_module, "PAGE", 2)
        client = TesClient(server.url)
        ids = [client.create(document) for _ in range(5)]
        query = [("tag_key", "mark"), ("tag_value", mark)]
        assert [task["id"] for task in client.tasks(query, "MINIMAL", 0)] == ids[::-1]
        assert [task["id"] for task in client.tasks(query, "MINIMAL", 3)] == ids[:1:-1]
        assert tesk("wait", "-q", *ids).returncode == 0

    def test_a_terminal_gets_tables(self, tesk: Tesk, on_terminal: Callable[..., str]) -> None:
        task_id = tesk("run", "--detach", "--name", "[red]n", *SHELL, "true").stdout.strip()
        assert tesk("wait", "-q", task_id).returncode == 0
        head, first, *_ = on_terminal("list", "--limit", "1").splitlines()
        assert head.split() == ["ID", "STATE", "CREATED", "NAME", "COMMAND"]
        assert first.split()[:2] == [task_id, "COMPLETE"]
        assert "[red]n" in first
        assert "exit code 0" in on_terminal("get", task_id)
        assert on_terminal("list", "--json", "--tag", "absent").strip() == "[]"

    def test_a_reader_that_has_enough_sees_no_complaint(self, server: Server, tesk: Tesk) -> None:
        task_id = tesk("run", "--detach", "--content", f"{'x' * 100_000}=/in/x", *SHELL, "true").stdout.strip()
        with subprocess.Popen(
            [*TESK, "get", "--server", server.url, task_id], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == b""
        assert tesk("wait", "-q", task_id).returncode == 0

    def test_logs_keep_the_streams_apart(self, tesk: Tesk) -> None:
        task_id = tesk("run", "--detach", *SHELL, "echo out; echo err >&2").stdout.strip()
        done = tesk("logs", "--follow", task_id)
        assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")

    def test_logs_of_one_executor(self, tesk: Tesk) -> None:
        document = json.loads(tesk("run", "--dry-run", *SHELL, "echo one").stdout)
        document["executors"].append({"image": IMAGE, "command": ["echo", "two"]})
        task_id = tesk("create", "-", stdin=json.dumps(document)).stdout.strip()
        assert tesk("wait", "-q", task_id).returncode == 0
        assert tesk("logs", task_id).stdout == "one\ntwo\n"
        assert tesk("logs", "--executor", "1", task_id).stdout == "two\n"

    def test_waiting_can_be_limited(self, tesk: Tesk) -> None:
        task_id = tesk("run", "--detach", *SHELL, "sleep 1800").stdout.strip()
        waited = tesk("wait", "-q", "--timeout", "0.1", task_id)
        fails(waited, 124, "1 of 1 tasks still run after 0.1 s")
        assert tesk("cancel", task_id).returncode == 0
        assert tesk("wait", "-q", task_id).returncode == 1

    def test_a_cancelled_run_ends_with_125(self, tesk: Tesk, server: Server) -> None:
        command = [*TESK, "run", "--server", server.url, *SHELL, "sleep 1800"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert tesk("cancel", process.stderr.readline().split()[0]).returncode == 0
            assert "CANCELED" in process.stderr.read()
            assert process.wait(300) == 125


class TestErrors:
    """Each is one line on stderr and an exit code that is not 0."""

    def test_no_server(self, tesk: Tesk) -> None:
        nowhere = {"TESK_SERVER": "http://user:secret@127.0.0.1:1"}
        done = tesk("list", env=nowhere)
        fails(done, 1, "no server at http://127.0.0.1:1 ")
        assert "tesk serve" in done.stderr
        assert "secret" not in done.stderr
        fails(tesk("run", *SHELL, "true", env=nowhere), 125, "no server at http://127.0.0.1:1 ")

    def test_a_server_that_speaks_no_tes(self, tesk: Tesk, server: Server) -> None:
        fails(tesk("list", "--server", f"{server.url}/elsewhere"), 1, "404")

    @pytest.mark.parametrize("command", ["get", "logs", "wait", "cancel"])
    def test_no_such_task(self, tesk: Tesk, command: str) -> None:
        fails(tesk(command, "0000000000000"), 1, "0000000000000")

    def test_a_document_that_is_refused(self, tesk: Tesk) -> None:
        fails(tesk("create", "-", stdin='{"executors": []}'), 1, "executors")
        fails(tesk("create", "-", stdin="{"), 1, "not JSON")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["run", "--", "true"], "Missing option '--image'"),
            (["run", "--image", IMAGE], "Missing argument 'COMMAND...'"),
            (["run", "--image", IMAGE, "--input", "a=/b", "true"], "neither a URL nor an absolute path"),
            (["create", "/no/such/file"], "No such file or directory"),
            (["get", "a/b"], "'a/b' is not a task id"),
            (["list", "--server", "ftp://h"], "is not a URL such as"),
            (["list", "--server", "h:port"], "is not a URL such as"),
            (["list", "--state", "DONE"], "'DONE' is not one of"),
            (["lsit"], "No such command 'lsit'"),
        ],
    )
    def test_wrong_use(self, tesk: Tesk, arguments: list[str], said: str) -> None:
        fails(tesk(*arguments), 2, said)


class TestServe:
    def test_a_setting_that_cannot_be_used(self, tesk: Tesk, tmp_path: Path) -> None:
        fails(tesk("serve", "--port", "http"), 1, "--port: expected a whole number, got text")
        fails(tesk("serve", env={"TESK_TASKS_ENGINE": "slurm"}), 1, "TESK_TASKS_ENGINE: expected one of local")
        (tmp_path / "tesk.toml").write_text("prot = 1")
        fails(tesk("serve", "--config", str(tmp_path / "tesk.toml")), 1, "tesk.toml: prot: no such setting")

    def test_a_port_that_is_taken(self, tesk: Tesk, server: Server, tmp_path: Path) -> None:
        port = server.url.rpartition(":")[2]
        fails(tesk("serve", "--port", port, "--data", str(tmp_path)), 1, f"127.0.0.1:{port}")

    def test_flags_reach_the_server(self, server: Server) -> None:
        client = TesClient(server.url)
        assert client.service_info()["name"] == "tested"


def test_the_version_is_the_packages(tesk: Tesk) -> None:
    metadata = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    version = tesk("version").stdout.split()[1]
    assert f'\nversion = "{version}"\n' in metadata
    assert tesk("--version").stdout == f"tesk {version}\n"


@pytest.mark.parametrize("command", ["", "serve", "run", "create", "get", "list", "logs", "wait", "cancel", "version"])
def test_help_teaches(tesk: Tesk, command: str) -> None:
    done = tesk(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert command == "version" or f"  tesk {command}" in done.stdout.replace("Usage: tesk", "")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], ["rich", "starlette", "sqlalchemy", "aiohttp"]),
        (["serve", "--port", "x"], ["rich", "starlette", "sqlalchemy", "aiohttp"]),
        (["list"], ["rich", "starlette", "sqlalchemy", "aiohttp"]),
        (["filer", "--help"], ["click", "rich", "starlette", "sqlalchemy", "aiohttp"]),
    ],
)
def test_a_command_imports_only_what_it_needs(server: Server, arguments: list[str], absent: list[str]) -> None:
    environment = {**os.environ, "TESK_SERVER": server.url}
    command = [TESK[0], "-X", "importtime", "-m", "tesk", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tesk" in imported
    assert not imported.intersection(absent)
