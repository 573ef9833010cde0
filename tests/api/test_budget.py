"""Bodies and answers that are under way share one budget of memory; small ones are served whatever it holds."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.server import app, budget
from tesk.server.budget import SMALL_BYTES, MemoryBudget, MemoryShare
from tesk.server.exchange import Refusal
from tests.api.conftest import LIMIT_S, Running, running
from tests.servers.cluster import until

MIB = 1024 * 1024
TASK = {"executors": [{"image": "alpine", "command": ["true"]}]}
FULL = b"GET /v1/tasks?view=FULL HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), LIMIT_S) as opened:
        yield opened


async def unsent(server: Running) -> int:
    """How many bytes of answers the server holds."""
    return sum(each.transport.get_write_buffer_size() for each in server.server_state.connections)


def large(size: int) -> bytes:
    executor = {"image": "alpine", "command": ["sh", "-c", "x" * size]}
    return json.dumps({"executors": [executor]}).encode()


def create(server: Running, document: bytes, **headers: str) -> httpx.Response:
    return server.client.post("/v1/tasks", content=document, headers={"Content-Type": "application/json", **headers})


def small_requests_are_served(server: Running) -> None:
    assert server.client.post("/v1/tasks", json=TASK).status_code == 200
    assert server.client.get("/v1/tasks?page_size=2047").status_code == 200
    identifier = server.client.get("/v1/tasks?page_size=1").json()["tasks"][0]["id"]
    assert server.client.get(f"/v1/tasks/{identifier}?view=FULL").status_code == 200
    assert server.client.post(f"/v1/tasks/{identifier}:cancel", json={}).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}])
def test_a_body_for_which_there_is_no_room_is_503_and_small_ones_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(app, "MOST_BYTES", 16 * MIB)
    monkeypatch.setattr(budget, "WAIT_S", 0.2)
    with running(tmp_path) as server, contextlib.ExitStack() as slow:
        for _ in range(2):
            head = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.enter_context(connected(server)).sendall(head + b"Content-Length: %d\r\n\r\n{" % (4 * MIB))
        until(lambda: server.app._budget.free == 0, what="both bodies have their room")
        refused = create(server, large(3 * MIB), **headers)
        assert refused.status_code == 503
        assert "try again" in refused.json()["msg"]
        assert int(refused.headers["retry-after"]) > 0
        small_requests_are_served(server)
        slow.close()
        until(lambda: create(server, large(3 * MIB)).status_code == 200, what="the room is given back")
        until(lambda: server.app._budget.free == 16 * MIB, what="all of it")


def test_a_chunked_body_takes_room_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_BYTES", 2 * MIB)
    monkeypatch.setattr(budget, "WAIT_S", 0.2)

    def pieces(size: int) -> Iterator[bytes]:
        document = large(size)
        for begin in range(0, len(document), 50_000):
            yield document[begin : begin + 50_000]

    headers = {"Content-Type": "application/json"}
    with running(tmp_path) as server:
        server.app._budget.free -= MIB
        assert server.client.post("/v1/tasks", content=pieces(1_500_000), headers=headers).status_code == 503
        assert server.client.post("/v1/tasks", content=pieces(400_000), headers=headers).status_code == 200
        assert server.app._budget.free == MIB


def test_answers_that_nobody_reads_hold_no_more_than_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 24 * MIB
    monkeypatch.setattr(app, "MOST_BYTES", most)
    monkeypatch.setattr(budget, "WAIT_S", 0.2)
    with running(tmp_path) as server, contextlib.ExitStack() as silent:
        for _ in range(40):
            assert create(server, large(300_000)).status_code == 200
        made = [task["id"] for task in server.client.get("/v1/tasks").json()["tasks"]]
        one = FULL.replace(b"/tasks", f"/tasks/{made[0]}".encode())
        for asked, left in ((FULL * 8, MIB), (one * 32, 300_000)):  # the kernel takes some
            for _ in range(30):
                client = silent.enter_context(connected(server))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.sendall(asked)
            until(lambda left=left: server.app._budget.free < left, what="most of the budget is held")  # type: ignore[misc]
        assert server.do(unsent(server)) <= most
        small_requests_are_served(server)
        for url in ("/v1/tasks?view=FULL", f"/v1/tasks/{made[0]}?view=FULL"):
            until(lambda url=url: server.client.get(url).status_code == 503, what=f"no room for {url}")  # type: ignore[misc]
        silent.close()
        until(lambda: server.app._budget.free == most, what="the room is given back")
        assert server.client.get(f"/v1/tasks/{made[0]}?view=FULL").status_code == 200


def test_a_page_is_shorter_where_little_room_is_left_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MOST_BYTES", 64 * MIB)
    with running(tmp_path) as server:
        for _ in range(12):
            assert create(server, large(300_000)).status_code == 200
        counts: dict[int, list[int]] = {}
        for free in (64, 6, 3):
            server.app._budget.free = free * MIB
            found: list[str] = []
            counts[free] = []
            query: dict[str, Any] = {"view": "FULL"}
            while not found or query["page_token"]:
                page = server.client.get("/v1/tasks", params=query).json()
                found += [task["id"] for task in page["tasks"]]
                counts[free].append(len(page["tasks"]))
                query["page_token"] = page["next_page_token"]
            assert len(set(found)) == len(found) == 12
            until(lambda free=free: server.app._budget.free == free * MIB, what="the room is given back")  # type: ignore[misc]
        assert counts == {64: [12], 6: [6, 6], 3: [4, 4, 4]}


async def test_who_waits_for_room_gets_it_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    room = MemoryBudget(10 * MIB)
    first, second, third = MemoryShare(room), MemoryShare(room), MemoryShare(room)
    await first.take(8 * MIB)
    waiting = asyncio.create_task(second.take(6 * MIB))
    await asyncio.sleep(0)
    behind = asyncio.create_task(third.take(MIB))
    await asyncio.sleep(0)
    assert not behind.done(), "nobody passes who came later"
    await MemoryShare(room).take(SMALL_BYTES)
    first.give_back()
    await asyncio.gather(waiting, behind)
    assert room.free == 3 * MIB
    monkeypatch.setattr(budget, "WAIT_S", 0.01)
    with pytest.raises(Refusal) as refused:
        await MemoryShare(room).take(4 * MIB)
    assert refused.value.status == 503
    gone = asyncio.create_task(MemoryShare(room).take(4 * MIB))
    await asyncio.sleep(0)
    gone.cancel()
    second.give_back()
    third.give_back()
    await asyncio.gather(gone, return_exceptions=True)
    assert room.free == 10 * MIB


def test_what_is_larger_than_all_of_the_budget_may_be_the_only_one() -> None:
    room = MemoryBudget(MIB)
    assert room.try_take(2 * MIB)
    assert not room.try_take(1)
    room.give_back(2 * MIB)
    assert room.free == MIB
