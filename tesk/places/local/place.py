"""The local engine: tasks as containers of this machine's Docker or Podman.

It keeps no list of its own that could be wrong: what exists is what lies in the tasks' folders and what the container
engine lists under this instance's label. Each submitted task has one coroutine (run.Run) that takes it to its end.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
from asyncio.subprocess import Process
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tesk import parameters
from tesk.clock import now
from tesk.life.status import TaskId, TaskStatus
from tesk.places.base import Demand, Denial, Job, Load, PlaceError, Report
from tesk.places.local import socket as sockets
from tesk.places.local.capacity import Capacity
from tesk.places.local.folder import Folder
from tesk.settings import Settings
from tesk.tes import FileTypes, State, TaskLog

if TYPE_CHECKING:
    from tesk.places.local.machine import Machine
    from tesk.places.local.run import Run

log = logging.getLogger(__name__)
OWN_PODMAN: Final = "podman"
TRIM_S: Final = 5.0
GIB: Final = 1024**3


class LocalPlace:
    """See base.Place. Everything it makes is below the data folder or labelled with its instance."""

    name = "local"

    def __init__(self, settings: Settings) -> None:
        self.backend_parameters = parameters.ALWAYS.union(settings.allowed_backend_parameters)
        self._settings = settings
        self._data = Path(settings.data).expanduser().absolute()
        self._tasks = self._data / "tasks"
        self._capacity = Capacity(
            cpu_cores=settings.cpu_cores or _cores(),
            ram_gb=settings.ram_gb or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB,
            tasks=settings.max_active_tasks,
        )
        self._runs: dict[TaskId, tuple[Run, asyncio.Task[None]]] = {}
        self._podman: Process | None = None
        self._chores: list[asyncio.Task[None]] = []
        self._machine: Machine | None = None
        self._report: Report | None = None

    async def open(self, report: Report) -> None:
        self._report = report
        if unknown := self.backend_parameters - parameters.ALWAYS - parameters.LOCAL:
            known = ", ".join(sorted(parameters.LOCAL))
            raise PlaceError(f"allowed_backend_parameters: {', '.join(sorted(unknown))}: the local engine has {known}")
        self._tasks.mkdir(mode=0o700, parents=True, exist_ok=True)
        named = self._settings.engine_socket
        socket = None if named == OWN_PODMAN else sockets.found(named)
        if socket is None:
            self._podman, socket = await sockets.start_podman(self._data / "run")
            self._chores.append(asyncio.create_task(self._keep_podman(), name="podman system service"))
        try:
            self._machine = await self._connect(socket)
        except BaseException:
            await self.close()
            raise
        self._chores.append(asyncio.create_task(self._trim(), name="trim streams"))

    async def _connect(self, socket: Path) -> "Machine":
        containers_module, looks_module, filers_module, machine_module = await asyncio.to_thread(_imports)
        containers = containers_module.Containers(socket, instance(self._data))
        try:
            log.info("container engine: %s at %s", await containers.ping(), socket)
            shim = await asyncio.to_thread(install_shim, self._data / "shim")
        except BaseException:
            await containers.close()
            raise
        filers = filers_module.Filers(int(self._settings.filer_ram_gb * GIB))
        looks = looks_module.Looks()
        machine: Machine = machine_module.Machine(
            self._settings, containers, looks, filers, shim, instance(self._data), _cores()
        )
        return machine

    async def close(self) -> None:
        tasks = [task for _, task in self._runs.values()] + self._chores
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runs.clear()
        self._chores.clear()
        if self._machine is not None:
            await self._machine.filers.close()
            await self._machine.containers.close()
            self._machine = None
        if self._podman is not None:
            await _end(self._podman)
            self._podman = None
            await asyncio.to_thread(sockets.clear, self._data / "run")

    def admission(self, demand: Demand, load: Load) -> Denial | None:
        return self._capacity.admission(demand, load)

    async def submit(self, job: Job) -> None:
        from tesk.places.local.run import Run

        if job.id in self._runs:
            return
        report = self._report
        assert report is not None
        folder = Folder(self._tasks / job.id)
        if job.begun and not folder.path.exists():
            report(job.id, _lost(folder.path))
            return
        run = Run(job, folder, self._opened(), lambda status: report(job.id, status))
        self._runs[job.id] = run, asyncio.create_task(run.live(), name=f"task {job.id}")

    async def cancel(self, task_id: TaskId) -> None:
        machine = self._opened()
        folder = Folder(self._tasks / task_id)
        run, life = self._runs.get(task_id, (None, None))
        if life is not None:
            life.cancel()
            await asyncio.wait([life])
        grace_s = self._settings.grace_s
        names = await machine.containers.names(task_id, started=True)
        await asyncio.gather(*(machine.containers.stop(name, grace_s) for name in names))
        known = await asyncio.to_thread(_last_log, folder, run)
        assert self._report is not None
        types = FileTypes() if run is None else run.types
        self._report(task_id, TaskStatus(State.CANCELED, known, types=types))

    async def forget(self, task_id: TaskId) -> None:
        machine = self._opened()
        run, life = self._runs.pop(task_id, (None, None))
        if life is not None:
            life.cancel()
            await asyncio.wait([life])
        names = run.containers() if run is not None else await machine.containers.names(task_id)
        await asyncio.gather(*(machine.containers.remove(name) for name in names))
        folder = Folder(self._tasks / task_id)
        try:
            await asyncio.to_thread(folder.remove)
        except PermissionError:
            await machine.on_folders(task_id, folder, "empty")
            await asyncio.to_thread(folder.remove)

    async def known(self) -> set[TaskId]:
        folders = {entry.name for entry in os.scandir(self._tasks)}
        return folders | set((await self._opened().containers.names()).values())

    async def live_log(self, task_id: TaskId) -> TaskLog | None:
        run, life = self._runs.get(task_id, (None, None))
        if run is None or life is None or life.done():
            return None
        return await asyncio.to_thread(run.live_log)

    async def ready(self) -> str | None:
        if self._machine is None:
            return "the container engine has not been reached yet"
        try:
            await self._machine.containers.ping()
        except PlaceError as error:
            return str(error)
        return None

    def _opened(self) -> "Machine":
        if self._machine is None:
            raise PlaceError("the container engine has not been reached yet")
        return self._machine

    async def _keep_podman(self) -> None:
        """Starts podman's service again when it ends by itself."""
        while True:
            assert self._podman is not None
            code = await self._podman.wait()
            log.warning("podman system service ended with code %s; starting it again", code)
            try:
                self._podman, _ = await sockets.start_podman(self._data / "run")
            except PlaceError as error:
                log.error("%s", error)
                await asyncio.sleep(TRIM_S)

    async def _trim(self) -> None:
        """Keeps streams that nobody asked for as files from filling the disk."""
        while True:
            await asyncio.sleep(TRIM_S)
            for run, _ in list(self._runs.values()):
                if run.running is not None:
                    try:
                        await asyncio.to_thread(run.folder.trim, run.running)
                    except OSError as error:
                        log.warning("task %s: its streams could not be trimmed: %s", run.job.id, error)


def instance(data: Path) -> str:
    """What tells this server's containers from those of another on the same engine: a hash of its data folder."""
    return hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]


def install_shim(folder: Path) -> Path:
    """The folder to mount into executors, with the shim in it. Raises PlaceError."""
    built = resources.files("tesk.shim").joinpath("shim")
    if not built.is_file():
        raise PlaceError(
            f"{built} is missing: this tesk was not installed on Linux by pip or uv; build it with tesk/shim/build"
        )
    data = built.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "shim"
    if not target.exists() or target.read_bytes() != data:
        draft = folder / f".shim.{os.getpid()}"
        draft.write_bytes(data)
        draft.chmod(0o755)
        draft.rename(target)
    return folder


def _imports():  # type: ignore[no-untyped-def]
    """Modules that take long to load, loaded off the event loop."""
    from tesk.places.local import containers, filers, looks, machine, run  # noqa: F401 - each task needs it

    return containers, looks, filers, machine


def _last_log(folder: Folder, run: "Run | None") -> TaskLog:
    """The log of a cancelled task: what had ended, and what its running executor had written."""
    from tesk.places.local.run import cancelled_log

    return cancelled_log(folder, run)


def _lost(folder: Path) -> TaskStatus:
    """The end of a task that has begun and of which nothing is left: to begin again could be to run it twice."""
    why = f"the task had begun, and nothing of it is left on this machine: there is no {folder}; it is not run again"
    return TaskStatus(State.SYSTEM_ERROR, TaskLog(end_time=now(), system_logs=[f"error: {why}"]))


def _cores() -> float:
    return float(len(os.sched_getaffinity(0)))


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
