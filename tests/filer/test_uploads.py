"""Uploads that are whole blocks in memory: how much is held, of a file that changes, to a store that is slow."""

import os
import socket
import threading
from pathlib import Path

import pytest

from tesk.filer.errors import TransferError
from tesk.filer.memory import UPLOADS_BYTES, Memory
from tesk.filer.plan import FilerSettings
from tesk.filer.scheme import Context
from tesk.filer.schemes.s3.parts import MAX_PARTS
from tesk.filer.schemes.s3.scheme import PARTS_AT_ONCE, cut
from tesk.filer.streams import Meter, Source
from tesk.tes import Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import push, write

MB, GB = 1_000_000, 1_000_000_000


@pytest.mark.parametrize("size", [1, 4 * MB, 5 * MB, 70 * GB, 80 * GB, 200 * GB, 450 * GB, 550 * GB])
def test_parts_that_grow_are_fewer_at_once(size: int) -> None:
    part, at_once = cut(size, UPLOADS_BYTES)
    assert part * at_once <= UPLOADS_BYTES
    assert part * MAX_PARTS >= size or part >= size
    assert 1 <= at_once <= PARTS_AT_ONCE


def test_a_part_above_all_that_may_be_held_goes_alone() -> None:
    part, at_once = cut(2_000 * GB, UPLOADS_BYTES)
    assert at_once == 1
    memory = Memory()
    with memory.lend(part):
        others = threading.Thread(target=_borrow, args=(memory, 1), daemon=True)
        others.start()
        others.join(0.05)
        assert others.is_alive()
    others.join(300)
    assert not others.is_alive()


def _borrow(memory: Memory, n_bytes: int) -> None:
    with memory.lend(n_bytes):
        pass


def test_no_more_is_lent_than_there_is() -> None:
    memory, most, held, lock = Memory(10), [0], [0], threading.Lock()

    def borrow(n_bytes: int) -> None:
        for _ in range(200):
            with memory.lend(n_bytes):
                with lock:
                    held[0] += n_bytes
                    most[0] = max(most[0], held[0])
                with lock:
                    held[0] -= n_bytes

    threads = [threading.Thread(target=borrow, args=(n,), daemon=True) for n in (1, 3, 4, 5, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    assert most[0] <= 10


def test_a_block_is_whole_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    fd = os.open(tmp_path / "f", os.O_RDWR)
    source = Source(fd, Meter(threading.Event()))
    assert [len(source.block(600)), len(source.block(600)), len(source.block(600))] == [600, 400, 0]
    source.restart()
    os.truncate(tmp_path / "f", 400)
    with pytest.raises(TransferError, match="became shorter while it was read"):
        source.block(1000)
    os.close(fd)


@pytest.mark.parametrize("url", ["s3://lab/f", "az://lab/f"])
def test_a_small_file_that_shrinks_meanwhile_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    write(tmp_path, {"root/f": b"x" * 1000})
    restart = Source.restart

    def shrinking(self: Source) -> None:
        restart(self)
        os.truncate(tmp_path / "root/f", 400)

    monkeypatch.setattr(Source, "restart", shrinking)
    with faulty(lambda connection, _n, _head: connection.sendall(answer("201 Created", b"", "ETag: x"))) as server:
        _configure(monkeypatch, tmp_path, server.url)
        failure = push(tmp_path / "root", Output("/f", url)).failure
        assert server.requests == []
    assert "the file became shorter while it was read" in failure


def test_an_s3_store_may_take_a_part_slower_than_it_may_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes well within the time limit, the whole of them does not."""
    write(tmp_path, {"root/f": b"x" * 1_500_000})

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        left = 1_500_000 - len(head.partition(b"\r\n\r\n")[2])
        while left > 0 and (got := len(connection.recv(min(left, 100_000)))):
            left -= got
            server.closing.wait(0.05)
        connection.sendall(answer("200 OK", b"", "ETag: x"))

    with faulty(script) as server:
        _configure(monkeypatch, tmp_path, server.url)
        report = push(tmp_path / "root", Output("/f", "s3://lab/f"), retries=0, timeout_s=0.3)
    assert report.ok, report.failure


def test_a_store_that_pushes_back_on_a_part_is_heeded_and_the_whole_is_not_tried_again_for_it() -> None:
    heard: list[TransferError] = []
    context = Context(FilerSettings(retries=1), Meter(threading.Event()), print, on_passing_error=heard.append)

    def part() -> None:
        raise TransferError("busy (503)", "wait", passing=True, pushed_back=True)

    with pytest.raises(TransferError, match="busy") as raised:
        context.retry_part(part)
    assert [error.pushed_back for error in heard] == [True]
    assert (raised.value.tries, raised.value.passing) == (2, False)


def _configure(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acct")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", url)
