"""What others have written reaches a terminal without its control characters: a server answers with nothing else."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click
import pytest

from tesk.cli.terminal import escaped, json_text
from tests.cli.conftest import TESK, shown_on_terminal

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b2J\x7f\u202e\r\nforged: COMPLETE"
ESCAPED = r"\x1b]0;owned\x07\x1b[2J\x9b2J\x7f\u202e"
OUTPUT = "\x1b[1mbold\x1b[0m\n"
SECRET = "https://me:hunter2@host/x?sig=hunter2"
TASK: dict[str, Any] = {
    "id": "t", "state": "COMPLETE", "creation_time": EVIL, "name": EVIL, "description": EVIL, "tags": {EVIL: EVIL},
    "executors": [{"image": EVIL, "command": [EVIL]}],
    "inputs": [{"url": EVIL, "path": EVIL}, {"url": SECRET, "path": "/in"}],
    "outputs": [{"url": SECRET, "path": EVIL}],
    "logs": [
        {
            "logs": [{"exit_code": 0, "stdout": OUTPUT, "stderr": OUTPUT}],
            "outputs": [{"url": SECRET, "path": EVIL, "size_bytes": EVIL}],
            "system_logs": [EVIL],
        }
    ],
}  # fmt: skip


class Foreign(BaseHTTPRequestHandler):
    """A TES server that means ill. Tasks named `t` are like any; `s` has a state that there is not."""

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        answers = {"t": TASK, "s": {**TASK, "id": EVIL, "state": EVIL}, "tasks": {"tasks": [{**TASK, "id": EVIL}]}}
        self.answer(200 if name in answers else 404, answers.get(name, {"msg": EVIL}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {"id": EVIL if b"evil" in body else "t"})

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status, "\x1b[2J")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def is_harmless(text: str) -> bool:
    """Nothing but what a reader sees, and line ends."""
    return all(character.isprintable() or character in "\r\n" for character in text)


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--json"],
        ["get", "t"],
        ["get", "s"],
        ["get", "--json", "t"],
        ["wait", "t"],
        ["run", "--detach", "--image", "evil", "true"],
    ],
)
def test_nothing_that_others_wrote_moves_the_terminal(foreign: str, command: list[str]) -> None:
    shown = shown_on_terminal(foreign, *command).replace(click.style("COMPLETE", fg="green"), "COMPLETE")
    assert is_harmless(shown), shown.encode()
    assert "\nforged" not in shown
    if command[0] == "get":
        assert r"\u202e" in shown


@pytest.mark.parametrize("command", [["logs", "t"], ["run", "--quiet", "--image", "a", "true"]])
def test_a_programs_output_is_its_own_and_the_system_log_is_not(foreign: str, command: list[str]) -> None:
    done = subprocess.run([*TESK, command[0], "--server", foreign, *command[1:]], capture_output=True, timeout=300)
    assert done.stdout.decode() == OUTPUT
    said = done.stderr.decode().removeprefix(OUTPUT)
    assert said == f"tesk: {ESCAPED}\\r\\nforged: COMPLETE\n"


@pytest.mark.parametrize(
    "command", [["get", "none"], ["logs", "none"], ["wait", "none"], ["get", EVIL], ["run", "--image", "evil", "true"]]
)
def test_an_error_is_one_harmless_line(foreign: str, command: list[str]) -> None:
    done = subprocess.run([*TESK, command[0], "--server", foreign, *command[1:]], capture_output=True, timeout=300)
    said = done.stderr.decode()
    assert done.returncode
    assert said.count("\n") == 1
    assert is_harmless(said), said.encode()


def test_words_show_no_credential_and_json_has_the_document(foreign: str) -> None:
    shown = shown_on_terminal(foreign, "get", "t")
    assert "https://host/x?…" in shown
    assert "hunter2" not in shown
    assert json.loads(shown_on_terminal(foreign, "get", "--json", "t")) == TASK


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, äöü 漢字 🧬 é", "plain, äöü 漢字 🧬 é"),
        ("a\tb\nc\0", r"a\tb\nc\x00"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x80\x9f\x7f", r"\x80\x9f\x7f"),
        ("\u2066a\u2069\u200f\u061c\u2028", r"\u2066a\u2069\u200f\u061c\u2028"),
        ("\ud800", r"\ud800"),
        (7, "7"),
    ],
)
def test_control_characters_are_shown_and_not_sent(text: object, shown: str) -> None:
    assert escaped(text) == shown


def test_json_means_the_same_without_control_characters() -> None:
    document = {EVIL: ["\ud800", "\u2028", "漢字 🧬", None, 1.5]}
    for indent in (None, 2):
        text = json_text(document, indent=indent)
        assert is_harmless(text)
        assert json.loads(text) == document
        assert "漢字 🧬" in text
