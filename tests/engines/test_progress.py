"""How far a transfer is can be seen while it lasts, on every engine."""

import socket
import threading

from tests.engines.places import Place
from tests.engines.running import Document, Tesk, sh
from tests.filer.faulty import answer, faulty


def progress(task: Document) -> str:
    return str((task["logs"][0].get("metadata") or {}).get("progress", "")) if task["logs"] else ""


def has_moved(task: Document) -> bool:
    return bool(progress(task)) and not progress(task).startswith("0 B")


async def test_a_task_shows_how_far_its_inputs_are(tesk: Tesk, place: Place) -> None:
    seen = threading.Event()

    def script(connection: socket.socket, _n: int, _h: bytes) -> None:
        """A part of a file; the rest when somebody has seen that."""
        whole = answer("200 OK", b"x" * 2_000_000)
        connection.sendall(whole[:-1_100_000])
        seen.wait(600)
        connection.sendall(whole[-1_100_000:])

    with faulty(script, place.host) as server:
        task_id = await tesk.create(
            inputs=[{"path": "/in/f", "url": f"{server.url}/f"}], executors=[sh("test $(wc -c </in/f) = 2000000")]
        )
        try:
            task = await tesk.until(task_id, has_moved)
        finally:
            seen.set()
        assert task["state"] == "INITIALIZING"
        assert progress(task).endswith("kB of 2 MB, 0 of 1 files")
        ended = await tesk.ended(task_id)
    assert ended["state"] == "COMPLETE", ended
    assert progress(ended) == "2 MB of 2 MB, 1 of 1 files"
