"""What a line of a watch means, and how many requests may be made (pure functions and a clock)."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.objects import Pod
from tesk.places.kubernetes import client
from tesk.places.kubernetes.client import Bucket
from tesk.places.kubernetes.watch import Change, change

decode = msgspec.json.Decoder(Pod).decode
POD = '{"metadata": {"name": "p", "resourceVersion": "7"}, "status": {"phase": "Running"}}'


def line(kind: str, found: str) -> bytes:
    return f'{{"type": "{kind}", "object": {found}}}'.encode()


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED"])
def test_an_object_is_so_now(kind: str) -> None:
    found = change(line(kind, POD), decode)
    assert (found.version, found.name, found.object.status.phase) == ("7", "p", "Running")


def test_what_is_deleted_is_gone() -> None:
    assert change(line("DELETED", POD), decode) == Change("7", "p", None)


def test_a_bookmark_only_makes_a_version() -> None:
    bookmark = '{"kind": "Pod", "metadata": {"resourceVersion": "9", "creationTimestamp": null}}'
    assert change(line("BOOKMARK", bookmark), decode) == Change("9")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ('{"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}', 410),
        ('{"kind": "Status", "code": 500, "message": "etcd"}', 500),
        ('{"kind": "Status"}', 410),
    ],
)
def test_an_error_ends_the_watch(status: str, code: int) -> None:
    with pytest.raises(ApiError) as ended:
        change(line("ERROR", status), decode)
    assert ended.value.code == code


async def test_requests_beyond_the_first_rush_keep_to_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    moment, waits = 7.0, list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: moment))
    monkeypatch.setattr(client, "asyncio", SimpleNamespace(sleep=sleep))
    bucket = Bucket(100, 5)
    for _ in range(5 + 20):
        await bucket.take()
    assert waits == pytest.approx([turn / 100 for turn in range(1, 21)])
    moment += 3600
    waits.clear()
    for _ in range(5 + 2):
        await bucket.take()
    assert waits == pytest.approx([0.01, 0.02]), "a long rest gives no longer rush"


async def test_whoever_gives_up_waiting_gives_its_turn_back() -> None:
    bucket = Bucket(1, 1)
    await bucket.take()
    crowd = [asyncio.create_task(bucket.take()) for _ in range(2000)]
    await asyncio.sleep(0)
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    async with asyncio.timeout(300):
        await bucket.take()
