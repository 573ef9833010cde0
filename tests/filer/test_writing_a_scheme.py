"""The page "Writing a storage scheme", followed to the letter in a copy of tesk."""

import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tesk.filer.plan import InputsPlan
from tesk.tes import Input

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/writing-a-storage-scheme.md").read_text()
UNFINISHED = shutil.ignore_patterns("__pycache__", "shim.[0-9]*")
"""What other processes write and rename meanwhile, such as the shim that is being built."""
STEP = re.compile(r"(?s)In `([^`]+)`[^\n]*:\n\n```python\n(.*?)```")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tesk, to which all that the page says is added."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "tesk", folder / "tesk", ignore=UNFINISHED)
    (registry, declaration), (module, code) = STEP.findall(PAGE)
    text = (folder / registry).read_text()
    assert text.count("\n)\n\nBY_NAME") == 1
    (folder / registry).write_text(text.replace("\n)\n\nBY_NAME", f"\n    {declaration.strip()},\n)\n\nBY_NAME"))
    (folder / module).parent.mkdir()
    (folder / module).parent.joinpath("__init__.py").touch()
    (folder / module).write_text(code)
    return folder


def tesk(copy: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, "-P", *arguments], input=given, capture_output=True, env=environment, cwd=copy
    )


@pytest.fixture
def gopher() -> Iterator[str]:
    """A Gopher server that has one binary file, and answers anything else with an error of its own."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(bytes(range(256)) if self.rfile.readline() == b"a b\r\n" else b"3not found\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"gopher://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


def test_the_filer_fetches_a_file_by_the_scheme_of_the_page(copy: Path, gopher: str, tmp_path: Path) -> None:
    plan = InputsPlan(str(tmp_path), [Input("/in/f", url=f"{gopher}/9a%20b")])
    done = tesk(copy, "-m", "tesk", "filer", "inputs", given=msgspec.json.encode(plan))
    assert done.returncode == 0, done
    assert (tmp_path / "in/f").read_bytes() == bytes(range(256))


def test_an_error_of_the_scheme_is_a_sentence(copy: Path, tmp_path: Path) -> None:
    plan = InputsPlan(str(tmp_path), [Input("/in/f", url="gopher://169.254.169.254/9a")])
    done = tesk(copy, "-m", "tesk", "filer", "inputs", given=msgspec.json.encode(plan))
    assert done.returncode == 1
    assert b"input gopher://169.254.169.254/9a: 169.254.169.254 is where a cloud hands out credentials" in done.stdout


@pytest.mark.parametrize(
    ("field", "url", "said"),
    [
        ("inputs", "gopher://h/9a", b""),
        ("inputs", "gopher://h", b"inputs[0].url: a gopher URL needs a path: gopher://host/path"),
        ("outputs", "gopher://h/9a", b"outputs[0].url: unsupported URL scheme 'gopher'"),
    ],
)
def test_documents_may_name_it_as_it_is_declared(copy: Path, field: str, url: str, said: bytes) -> None:
    task = {"executors": [{"image": "i", "command": ["c"]}], field: [{"url": url, "path": "/p"}]}
    script = "import sys\nfrom tesk.tes import parse\nparse(sys.stdin.buffer.read())"
    done = tesk(copy, "-c", script, given=msgspec.json.encode(task))
    assert said in done.stderr
    assert bool(done.returncode) == bool(said)


def test_the_help_has_it(copy: Path) -> None:
    assert b"gopher: (inputs only)" in b" ".join(tesk(copy, "-m", "tesk", "run", "--help").stdout.split())
