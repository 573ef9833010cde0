"""The containers of one task's executors: each is made, attached to, started once and waited for.

Most of the time that an engine takes for a container goes before its start. So a container may be made and attached to
before it is its turn, while the inputs are being fetched: its start alone is left then.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from tesk import parameters
from tesk.layout import Layout
from tesk.life.outcome import End
from tesk.places.base import Job
from tesk.places.local import manifest
from tesk.places.local.containers import ContainerState, to_its_end
from tesk.places.local.folder import Folder
from tesk.places.local.machine import Machine
from tesk.tes import Resources, State

log = logging.getLogger(__name__)
BELIEVED_S: Final = 30.0
"""So long a container that has not been started is believed to be there."""


class Program:
    """The container of an executor that is to run, or runs, in the eyes of this process.

    `run` attaches to the container, starts it once `may_start` is set, and returns how it ended.
    """

    def __init__(self, n: int, run: "Callable[[Program], Coroutine[Any, Any, ContainerState | None]]") -> None:
        self.n = n
        self.may_start = asyncio.Event()
        self.started = asyncio.get_running_loop().create_future()
        self.ended = asyncio.create_task(run(self), name=f"executor {n}")
        self.is_stopping = False
        self.is_over = False
        self._made_at = asyncio.get_running_loop().time()

    @property
    def age_s(self) -> float:
        return asyncio.get_running_loop().time() - self._made_at

    async def wait(self, timeout_s: float | None) -> None:
        """Until it has started or ended, or for so long."""
        waits = {self.ended} if self.started.done() else {self.ended, self.started}
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Lets go of the container, which goes on; one that is being started is started first."""
        self.ended.cancel()
        await asyncio.wait([self.ended])
        if not self.ended.cancelled() and (error := self.ended.exception()):
            log.info("executor %d: %s", self.n, error)


class Executors:
    """At most one container is `prepared`: made, and not started yet."""

    def __init__(self, job: Job, folder: Folder, machine: Machine, given: Mapping[str, str]) -> None:
        self.prepared: Program | None = None
        self._job, self._folder, self._machine, self._given = job, folder, machine, given
        self._reached = len(job.task.executors) if folder.path.exists() else -1

    def name(self, n: int) -> str:
        return manifest.name(self._job.id, n)

    def names(self) -> list[str]:
        """The names of the containers that were made, or were about to be."""
        return [self.name(n) for n in range(len(self._job.task.executors)) if n <= self._reached]

    async def close(self) -> None:
        """Lets go of what is prepared."""
        if self.prepared is not None:
            await self.prepared.close()
            self.prepared = None

    async def prepare(self, n: int, layout: Layout, *, anew: bool) -> None:
        """Makes the container of executor `n` and begins to attach to it: all but its start. `anew`: there may be one
        of an earlier life. Raises StartError."""
        await self._make(n, layout, anew=anew)
        self.prepared = Program(n, self._run)

    async def is_prepared(self) -> bool:
        """True when a container waits for its start. Long after it was made the engine is asked, since whoever tidies
        up may have removed it."""
        if self.prepared is None:
            return False
        if self.prepared.age_s < BELIEVED_S or await self.state(self.prepared.n) is not None:
            return True
        await self.close()
        return False

    def start(self) -> Program:
        """Starts what is prepared."""
        assert self.prepared is not None
        program, self.prepared = self.prepared, None
        program.may_start.set()
        return program

    def found(self, n: int) -> Program:
        """The program of an executor that an earlier life has started and that runs."""
        program = Program(n, lambda _: self._machine.containers.end(self.name(n)))
        program.started.set_result(None)
        return program

    async def state(self, n: int) -> ContainerState | None:
        return await self._machine.containers.state(self.name(n))

    async def stop(self, n: int) -> None:
        await self._machine.containers.stop(self.name(n), self._machine.settings.grace_s)

    async def last_words(self, n: int) -> str:
        return await self._machine.containers.last_words(self.name(n))

    async def _make(self, n: int, layout: Layout, *, anew: bool) -> None:
        """Makes the container. The one that an earlier life was about to start is as it should be; any other has never
        run and may be that of an earlier version or setting. Raises StartError."""
        containers, name, executor = self._machine.containers, self.name(n), self._job.task.executors[n]
        self._reached = max(self._reached, n)
        control = self._folder.control(n)
        await self._verify(n, layout)
        if not self._folder.has(f"started-{n}"):
            if anew:
                await to_its_end(containers.remove(name))
            body = manifest.container(
                executor, layout, self._job.task.resources or Resources(),
                last=n == len(self._job.task.executors) - 1,
                labels={**self._machine.labels(self._job.id), "tesk.executor": str(n)},
                shim=self._machine.shim, control=control, scratch=self._folder.scratch, cores=self._machine.cores,
                settings=self._machine.settings, given=self._given, devices=self._devices(),
                volumes=self._job.granted.volumes.values(),
            )  # fmt: skip
            await to_its_end(containers.create(name, body))
        if executor.workdir and not layout.covers(executor.workdir):
            await containers.make_directory(name, executor.workdir)

    async def _verify(self, n: int, layout: Layout) -> None:
        try:
            await asyncio.to_thread(self._folder.verify, n, layout.bound)
        except OSError as error:
            what = f"{error.filename} in {self._folder.path}"
            raise End(State.SYSTEM_ERROR, f"executor {n}: {what} cannot be mounted: {error.strerror}") from error
        for name, volume in self._job.granted.volumes.items():
            if not await asyncio.to_thread(os.path.isdir, volume.folder):
                what = f"the volume {name!r}: {volume.folder} is not a folder of this machine"
                raise End(State.SYSTEM_ERROR, f"executor {n}: {what}; ask whoever runs this server")

    def _devices(self) -> list[dict[str, Any]]:
        containers, count = self._machine.containers, int(self._given.get(parameters.GPU, 0))
        if not count:
            return []
        kind = self._machine.settings.gpu_resource
        return manifest.device_requests(count, kind, containers.engine, containers.version)

    async def _run(self, program: Program) -> ContainerState | None:
        """Attaches to the container, starts it when it may, and waits for its end. Being cancelled, it first finishes
        starting."""
        containers, name = self._machine.containers, self.name(program.n)

        async def start() -> None:
            await program.may_start.wait()
            await to_its_end(containers.start(name))
            program.started.set_result(None)

        has_entry_point = parameters.ENTRYPOINT in self._given
        return await containers.run(name, start, lambda: None if has_entry_point else self._folder.exit_code(program.n))
