"""Runs transfer steps in processes of their own, through the zygote, and tells how they ended."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any, Final

import msgspec

from tesk.filer.plan import Event, Plan, Progress, Pushed
from tesk.life.transfer import Transfer
from tesk.places.base import PlaceError

log = logging.getLogger(__name__)
START_TIMEOUT_S: Final = 30.0
RETRY_S: Final = (0.2, 1.0)
ABORTED: Final = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)
TAIL_BYTES: Final = 1_000_000
OUTPUTS_BYTES: Final = 4 * 1024 * 1024
"""As much of a step's report as may name outputs that become part of the task's log: some 40,000 of them."""
_event: Final = msgspec.json.Decoder(Event).decode


class Filers:
    """Owner of the zygote, which starts with the first step and is started again should it die.

    `memory_bytes`: what each filer may have, 0 for any.
    """

    def __init__(self, memory_bytes: int = 0) -> None:
        self._memory_bytes = memory_bytes
        self._process: Process | None = None
        self._channel: socket.socket | None = None
        self._listener: asyncio.Task[None] | None = None
        self._ends: dict[str, asyncio.Future[int]] = {}
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        """Ends the zygote, and with it every filer that still runs."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = self._channel = self._listener = None

    async def run(self, key: str, plan: Plan, folder: Path, report: Path) -> None:
        """Runs one step to its end; `report` holds its events. Killed when this call is cancelled."""
        path = folder / f"{report.stem}.plan"
        await asyncio.to_thread(_write, path, plan)
        order = {
            "run": key, "plan": str(path), "report": str(report),
            "memory": self._memory_bytes, "transfers": plan.settings.concurrency,
        }  # fmt: skip
        try:
            for pause_s in (*RETRY_S, None):
                code = await self._step(key, order)
                if code is not None and code >= 0:
                    return
                signal_name = "" if code is None else f" by {signal.Signals(-code).name}"
                log.warning("%s: the filer was killed%s", key, signal_name)
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
            raise PlaceError(why_killed(code, self._memory_bytes))
        finally:
            path.unlink(missing_ok=True)

    async def _step(self, key: str, order: dict[str, Any]) -> int | None:
        """The exit code, or None when the zygote died."""
        channel = await self._ready()
        end = self._ends[key] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        try:
            try:
                await loop.sock_sendall(channel, json.dumps(order).encode())
                return await asyncio.shield(end)
            except (OSError, ConnectionError):
                return None
            except asyncio.CancelledError:
                with contextlib.suppress(OSError):
                    channel.send(json.dumps({"kill": key}).encode())
                    await asyncio.wait([end], timeout=START_TIMEOUT_S)
                raise
        finally:
            self._ends.pop(key, None)

    async def _ready(self) -> socket.socket:
        async with self._starting:
            if self._channel is None or self._process is None or self._process.returncode is not None:
                await self.close()
                await self._start()
            assert self._channel is not None
            return self._channel

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tesk.places.local.zygote", str(theirs.fileno()),
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        self._channel = ours
        self._listener = asyncio.create_task(self._listen(ours), name="filer ends")

    async def _listen(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while message := await loop.sock_recv(channel, 65536):
                end = json.loads(message)
                waiting = self._ends.get(end["key"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(end["code"])
        except OSError as error:
            log.warning("the filers' zygote is gone: %s", error)
        finally:
            for waiting in self._ends.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError("the filers' zygote ended"))


def why_killed(code: int | None, memory_bytes: int) -> str:
    """Why a filer had no end of its own. A library that is refused memory aborts the whole process."""
    if code in ABORTED and memory_bytes:
        gib = memory_bytes / 1024**3
        return f"the filer was aborted again and again, as one that has used up its {gib:g} GiB (filer_ram_gb)"
    return "the filer was killed again and again; is memory short? See the server's log"


def _write(path: Path, plan: Plan) -> None:
    """For this user alone: inputs' contents may be secret."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(plan))


def read_report(report: Path) -> Transfer:
    """What a step has said so far, read line by line, since a report may be large; half a last line is left out.

    Outputs are shown as far as they fit into OUTPUTS_BYTES, since they become part of the task's documents.
    """
    found, size = Transfer(), 0
    try:
        file = report.open("rb")
    except FileNotFoundError:
        return found
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            event = _event(line)
            size += len(line) if isinstance(event, Pushed) else 0
            found.add(event, is_shown=size <= OUTPUTS_BYTES)
    return found


def last_progress(report: Path) -> Progress | None:
    """How far a step is, by the end of its report."""
    try:
        with report.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(msgspec.DecodeError):
            if isinstance(event := _event(line), Progress):
                return event
    return None
