"""The output of running tasks, however many ask for it: what the Kubernetes API is asked, and what waits for that."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tesk.kubernetes import names
from tesk.places.kubernetes import client as clients
from tesk.places.kubernetes import live_output
from tesk.places.kubernetes.client import LIVE_AT_ONCE, Client
from tesk.places.kubernetes.config import Access
from tesk.places.kubernetes.live_output import OutputLog, Outputs

SAFE_S = 300.0
LOGS = "/api/v1/namespaces/here/pods"


class Api:
    """A server in the place of the Kubernetes API that counts requests and holds those for logs while `is_held`."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.requests[request.path] += 1
        if request.path.endswith("/log"):
            await self.go_on.wait()
            return web.Response(text=json.dumps({"stdout": request.path.split("/")[-2]}))
        return web.json_response({})

    @property
    def logs(self) -> int:
        return sum(count for path, count in self.requests.items() if path.endswith("/log"))


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """What was read stays fresh, and no request is given up, however busy the machine is."""
    monkeypatch.setattr(live_output, "FRESH_S", SAFE_S)
    monkeypatch.setattr(live_output, "TIMEOUT_S", SAFE_S)
    monkeypatch.setattr(clients, "TIMEOUT_S", SAFE_S)
    return Api()


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    runner = web.ServerRunner(web.Server(api.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made = Client(Access(f"http://{host}:{port}", "here"), "here", 1000)
    await made.open()
    yield made
    await made.close()
    await runner.cleanup()


def log_of(pod: str) -> OutputLog:
    return OutputLog(pod, names.REPORTER_CONTAINER, 0)


async def test_one_request_answers_all_who_ask_for_the_same_at_once(api: Api, client: Client) -> None:
    outputs = Outputs(client, 1000)
    found = await asyncio.gather(*(outputs.of(log_of(f"pod-{n % 2}")) for n in range(1000)))
    assert found[:2] == [("pod-0", ""), ("pod-1", "")]
    assert await outputs.of(log_of("pod-0")) == ("pod-0", "")
    assert api.requests == {f"{LOGS}/pod-0/log": 1, f"{LOGS}/pod-1/log": 1}
    await outputs.close()


async def test_what_was_read_is_read_again_after_a_while(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_output, "FRESH_S", 0.01)
    outputs = Outputs(client, 1000)
    async with asyncio.timeout(SAFE_S):
        while api.logs < 3:
            await outputs.of(log_of("pod"))
            await asyncio.sleep(0.02)
    await outputs.close()


async def test_those_who_ask_for_output_keep_nothing_else_waiting(api: Api, client: Client) -> None:
    """Neither while their requests are held up by a node, nor after they have given up."""
    api.go_on.clear()
    outputs = Outputs(client, 1000)
    crowd = [asyncio.create_task(outputs.of(log_of(f"pod-{n}"))) for n in range(5000)]
    async with asyncio.timeout(SAFE_S):
        while api.logs < LIVE_AT_ONCE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for n in range(100):
            assert await client.get("jobs", f"job-{n}") is not None
        assert api.logs == LIVE_AT_ONCE
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert await client.get("jobs", "after-all") is not None
        api.go_on.set()
        assert await outputs.of(log_of("pod-1")) == ("pod-1", "")
    await outputs.close()


@pytest.mark.parametrize("name", ["../secrets", "a/log?follow=true&x=", "a%2fb", "..", "a b", "A"])
async def test_what_is_no_name_becomes_no_part_of_a_request(api: Api, client: Client, name: str) -> None:
    with pytest.raises(ValueError, match="no object of Kubernetes is called"):
        await client.delete("pods", name)
    assert not api.requests
