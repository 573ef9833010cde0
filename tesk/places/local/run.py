"""One task's way through its life on this machine: inputs, executors one by one, outputs, end.

Every step leaves a fact behind (see folder.py) or a container with a name of its own, and begins by asking whether it
has been done. So a life can be begun again after a crash at any line: what ran is not run twice, what runs is waited
for, and what was cut off is done again.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from aiodocker.exceptions import DockerError
from msgspec import Struct

from tesk import parameters
from tesk.clock import now, seconds_since, stamp
from tesk.filer import scratch
from tesk.filer.plan import FilerSettings, InputsPlan, OutputsPlan, Plan, Progress
from tesk.layout import Found, Layout, doubtful, layout, occupied, read_answer, to_look_at
from tesk.life.log import CANCELED, noted, out_of_memory
from tesk.life.log_bound import TOO_LONG, fit, task_bytes
from tesk.life.status import TaskStatus
from tesk.places.base import Job, PlaceError
from tesk.places.local import manifest
from tesk.places.local.containers import Containers, ContainerState, EngineAway, ImageError, Patience, StartError
from tesk.places.local.filers import Filers, Told, last_progress, told
from tesk.places.local.folder import BOOT, Folder, is_master_of_files
from tesk.places.local.looks import Looks
from tesk.settings import Settings
from tesk.tails import oddity, tail
from tesk.tes import Executor, ExecutorLog, FileTypes, OutputFileLog, Resources, State, TaskLog

log = logging.getLogger(__name__)
TERMINATED: Final = 128 + 15
RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
LOOK_EVERY_S: Final = 2.0
AWAY: Final = (EngineAway, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, TimeoutError)
"""What a call fails with when the container engine goes away before it or in its midst."""


class Machine(Struct, frozen=True):
    """What every life on this machine shares."""

    settings: Settings
    containers: Containers
    looks: Looks
    filers: Filers
    shim: Path
    instance: str
    cores: float


class End(Exception):
    """The task's end: its state, and for a system error why."""

    def __init__(self, state: State, reason: str | None = None) -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason


class Run:
    """The life of one task. `live` runs it; `log` is what is known of it; `report` hears of every change."""

    def __init__(self, job: Job, folder: Folder, machine: Machine, report: Callable[[TaskStatus], None]) -> None:
        self.job = job
        self.folder = folder
        self.machine = machine
        self.log = TaskLog()
        self.state = State.INITIALIZING
        self.types = FileTypes()
        self.running: int | None = None
        self._report = report
        self._patience = Patience(machine.settings.engine_patience_s)
        self._unwritten: list[str] = []
        self._clock: asyncio.Task[None] | None = None
        self._overdue: set[int] = set()
        self._layout = Layout()
        self._given = parameters.given(job.task, machine.settings.allowed_backend_parameters)
        self._limit_s = parameters.time_limit_s(self._given, machine.settings.executor_timeout_s)
        self._resumed = folder.path.exists()
        self._has_looked = self._resumed
        self._reached = len(job.task.executors) if self._resumed else -1

    def notes(self) -> list[str]:
        return self.folder.notes() + self._unwritten

    def note(self, line: str) -> None:
        """Adds a line to the system log; where it cannot be written down, as on a full disk, it is kept in memory."""
        try:
            self.folder.note(line)
        except OSError as error:
            log.error("task %s: a line of its system log could not be written: %s", self.job.id, error)
            self._unwritten.append(line)

    def containers(self) -> list[str]:
        """The names of the containers that it has made, or was about to make."""
        executors = range(len(self.job.task.executors))
        names = [manifest.name(self.job.id, n) for n in executors if n <= self._reached]
        return [*names, manifest.name(self.job.id, manifest.LOOK)] if self._has_looked else names

    def tell(self, state: State) -> None:
        """Reports the state with the log as it is."""
        self.state = state
        self.log.system_logs = self.notes() or msgspec.UNSET
        self._report(TaskStatus(state, msgspec.structs.replace(self.log, logs=[*self.log.logs]), types=self.types))

    async def live(self) -> None:
        """Runs the task to its end and reports it. Cancelling the call leaves the containers alone."""
        try:
            if ended := self.folder.fact("ended", TaskStatus):
                self.log = ended.log
                return self._report(ended)
            for name in self.folder.unreadable():
                self.note(f"warning: the fact {name!r} cannot be read, as after a power cut; it counts as absent")
            await self._patiently()
        except End as end:
            if end.reason:
                self.note(f"error: {end.reason}")
            await self._conclude(end.state)
        except OSError as error:
            self.note(f"error: this machine failed the task: {error}")
            await self._conclude(State.SYSTEM_ERROR)
        except Exception as error:
            log.exception("task %s: internal error", self.job.id)
            self.note(f"error: internal error of the server: {error!r}")
            await self._conclude(State.SYSTEM_ERROR)

    async def _establish(self, name: str, value: Any, *, durable: bool = False) -> None:
        """Makes the fact so, off the event loop: a slow disk holds up this task alone."""
        await _to_its_end(asyncio.to_thread(self.folder.establish, name, value, durable=durable))

    async def _conclude(self, state: State) -> None:
        """Ends the task. The fact need not be durable: the store's record of it follows, and that is."""
        self.log.end_time = now()
        self.log.system_logs = self.notes() or msgspec.UNSET
        try:
            await self._establish("ended", TaskStatus(state, self.log, types=self.types))
        except OSError as error:
            log.error("task %s: its end (%s) could not be written down: %s", self.job.id, state.name, error)
        self.tell(state)

    async def _patiently(self) -> None:
        """The life, taken up again where it stands while the container engine is away."""
        for turn in range(1_000_000):
            try:
                await self._life()
            except AWAY as error:
                away = error if isinstance(error, EngineAway) else EngineAway(repr(error))
                if self._patience.is_over(asyncio.get_running_loop().time()):
                    raise End(State.SYSTEM_ERROR, str(away)) from error
                log.warning("task %s: %s; trying again", self.job.id, away)
            except DockerError as error:
                raise End(State.SYSTEM_ERROR, f"the container engine refused: {error.message}") from error
            except PlaceError as error:
                raise End(State.SYSTEM_ERROR, str(error)) from error
            self._resumed = True
            await asyncio.sleep(RETRY_S[min(turn, len(RETRY_S) - 1)])

    async def _life(self) -> None:
        self.folder.make()
        began = self.folder.fact("began", str)
        if began is None:
            await self._establish("image", self.job.task.executors[0].image, durable=True)
            await self._establish("began", began := now(), durable=True)
            await asyncio.to_thread(self.folder.keep)
        self._refuse_after_a_boot()
        self.log, self.types = TaskLog(start_time=began), self.folder.fact("types", FileTypes) or FileTypes()
        self.tell(State.INITIALIZING)
        await self._initialize()
        failed = await self._execute_all()
        await self._push(failed)
        raise End(State.EXECUTOR_ERROR if failed else State.COMPLETE)

    def _refuse_after_a_boot(self) -> None:
        """Raises End where the machine was started anew since an executor began: it may have gone down without writing
        the scratch volume to disk, and what is cut short there would go into the outputs unseen."""
        started = self.folder.fact("started-0")
        if started and started.get("boot", BOOT) != BOOT:
            why = "this machine was started anew while the task ran, and what its programs had written may not be whole"
            raise End(State.SYSTEM_ERROR, f"{why}; it is not run again")

    async def _initialize(self) -> None:
        """Inputs and images, at the same time; the first failure ends both. Where inputs lie may depend on the images:
        they come first then."""
        asked = await asyncio.to_thread(doubtful, self.job.task)
        try:
            async with asyncio.TaskGroup() as group:
                images = [group.create_task(self._pull(image)) for image in self._images()]
                group.create_task(self._lay_out_and_fetch(asked, images))
        except BaseExceptionGroup as problems:
            raise _first(problems) from None

    def _images(self) -> list[str]:
        return [*dict.fromkeys(executor.image for executor in self.job.task.executors)]

    async def _lay_out_and_fetch(self, asked: Sequence[str], images: Sequence[asyncio.Task[None]]) -> None:
        """Fetches the inputs to where the containers will have them. What was found then holds for all of the task."""
        found: Found | None = self.folder.fact("found", Found)
        if found is None and asked and not self.folder.has("inputs"):
            await asyncio.gather(*images)
            found = Found(await self._look(asked))
            await self._establish("found", found, durable=True)
        await self._fetch(found or Found())

    async def _look(self, asked: Sequence[str]) -> dict[str, bool]:
        """What the images have in these directories, for `layout`."""
        answers = []
        for image in self._images():
            image_id = await self.machine.containers.image_id(image)
            answers.append(await self.machine.looks.at(image_id, asked, partial(self._ask, image)))
        return occupied(asked, answers)

    async def _ask(self, image: str, asked: Sequence[str]) -> dict[str, int]:
        """What an image has at these paths. One that cannot be run counts as empty: its executor will say why."""
        self._has_looked, paths = True, to_look_at(asked)
        control = await asyncio.to_thread(self.folder.question, manifest.LOOK)
        labels = {"tesk.instance": self.machine.instance, "tesk.task": self.job.id}
        body = manifest.looking(image, paths, labels=labels, shim=self.machine.shim, control=control)
        try:
            await _to_its_end(self.machine.containers.run_through(manifest.name(self.job.id, manifest.LOOK), body))
        except StartError as error:
            log.warning("task %s: image %s could not be looked at: %s", self.job.id, image, error)
        digits = await asyncio.to_thread(self.folder.answer, manifest.LOOK)
        return read_answer(paths, digits)

    async def _pull(self, image: str) -> None:
        settings = self.machine.settings
        policy = "IfNotPresent" if self.folder.has("started-0") else settings.executor_image_pull_policy
        try:
            await self.machine.containers.pull(image, self.note, settings.pull_timeout_s, policy)
        except ImageError as error:
            raise End(State.SYSTEM_ERROR, str(error)) from error

    async def _fetch(self, found: Found) -> None:
        self._layout = await asyncio.to_thread(layout, self.job.task, found)
        fetched = self.folder.fact("inputs")
        if self.folder.has("started-0") or (fetched and fetched.get("boot", BOOT) == BOOT):
            return
        plan, root = self._layout, str(self.folder.scratch)
        inputs = self.job.task.inputs
        if inputs:
            directories, touched = [*plan.directories], [*plan.touched]
            wanted = InputsPlan(root, inputs, directories, touched, self._filer_settings(), plan.uncopied)
            step = await self._step("inputs", wanted)
            if step.verdict:
                raise End(State.SYSTEM_ERROR, step.verdict)
            if step.alone:
                found.alone += step.alone
                await self._establish("found", found, durable=True)
                self._layout = await asyncio.to_thread(layout, self.job.task, found)
        elif not plan.is_empty:
            await asyncio.to_thread(scratch.prepare, root, plan.directories, plan.touched)
        await self._establish("inputs", {"done": now(), "boot": BOOT})
        self._patience.renew()

    async def _step(self, name: str, plan: Plan) -> Told:
        """Runs the filer; what it has told, of which its warnings become notes."""
        report = self.folder.path / f"{name}.jsonl"
        watching = asyncio.create_task(self._watch(report), name=f"progress of {self.job.id}")
        try:
            await self.machine.filers.run(f"{self.job.id}/{name}", plan, self.folder.path, report)
        finally:
            watching.cancel()
            self._moved(await asyncio.to_thread(last_progress, report))
        found = await asyncio.to_thread(told, report)
        if found.letters:
            self.types = msgspec.structs.replace(self.types, **{name: found.letters})
            await self._establish("types", self.types)
        for line in found.notes():
            self.note(line)
        return found

    async def _watch(self, report: Path) -> None:
        """Tells how far a filer is, as often as it says so."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._moved(await asyncio.to_thread(last_progress, report)):
                self.tell(self.state)

    def _moved(self, told: Progress | None) -> bool:
        """Notes how far the filer is in the log; whether that is news."""
        known = self.log.metadata
        if told is not None:
            self.log.metadata = {"progress": told.words()}
        return self.log.metadata != known

    async def _execute_all(self) -> bool:
        """Runs the executors in order; True when one failed and its error was not to be ignored."""
        for n, executor in enumerate(self.job.task.executors):
            result = self.folder.fact(f"executor-{n}", ExecutorLog)
            if result is None:
                result = await self._execute(n, executor)
                self.running = None
                await self._establish(f"executor-{n}", result, durable=True)
                self._patience.renew()
                if result.exit_code:
                    ignored = "" if self._fails(n, result) else ", ignored"
                    self.note(f"executor {n} ({executor.image}): exit code {result.exit_code}{ignored}")
            self._keep(result)
            if self._fails(n, result):
                return True
        return False

    def _fails(self, n: int, result: ExecutorLog) -> bool:
        if self._is_overdue(n):
            return True
        return bool(result.exit_code) and not self.job.task.executors[n].ignore_error

    async def _execute(self, n: int, executor: Executor) -> ExecutorLog:
        """Runs executor N, or takes up its container where it stands."""
        name = manifest.name(self.job.id, n)
        state = await self.machine.containers.state(name) if self._resumed else None
        if state is None and self.folder.has(f"started-{n}"):
            raise End(State.SYSTEM_ERROR, f"executor {n}: its container {name} was removed by somebody else")
        begun = now()
        self._reached = max(self._reached, n)
        try:
            if state is None or state.status in ("created", "configured", "initialized"):
                state = await self._start(n, executor, name, exists=state is not None)
            elif not state.is_over:
                self.running = n
                self._runs(n)
                state = await self.machine.containers.end(name)
        except StartError as error:
            if error.code is None:
                raise End(State.SYSTEM_ERROR, f"executor {n} ({executor.image}): {error}") from error
            return ExecutorLog(error.code, begun, now(), stderr=f"tesk: {error}")
        finally:
            await self._stop_the_clock()
        if state is None:
            raise End(State.SYSTEM_ERROR, f"executor {n}: its container {name} was removed by somebody else")
        result = self._result(n, executor, state)
        if parameters.ENTRYPOINT in self._given and result.exit_code and not (result.stdout or result.stderr):
            result.stderr = await self.machine.containers.last_words(name)
        return result

    async def _start(self, n: int, executor: Executor, name: str, *, exists: bool) -> ContainerState | None:
        """Creates and starts the container and waits for its end. Being cancelled, it first finishes starting."""
        containers = self.machine.containers
        control = self.folder.control(n)
        self.running = n
        await self._verify(n)
        if not exists:
            body = manifest.container(
                executor, self._layout, self.job.task.resources or Resources(),
                last=n == len(self.job.task.executors) - 1,
                labels={"tesk.instance": self.machine.instance, "tesk.task": self.job.id, "tesk.executor": str(n)},
                shim=self.machine.shim, control=control, scratch=self.folder.scratch,
                settings=self.machine.settings, cores=self.machine.cores, given=self._given, devices=self._devices(),
            )  # fmt: skip
            await _to_its_end(containers.create(name, body))
        if executor.workdir and not self._layout.covers(executor.workdir):
            await containers.make_directory(name, executor.workdir)

        async def start() -> None:
            await self._establish(f"started-{n}", {"at": now(), "boot": BOOT}, durable=True)
            await _to_its_end(containers.start(name))
            self._runs(n)

        has_entry_point = parameters.ENTRYPOINT in self._given
        return await containers.run(name, start, lambda: None if has_entry_point else self.folder.exit_code(n))

    def _devices(self) -> list[dict[str, Any]]:
        containers, count = self.machine.containers, int(self._given.get(parameters.GPU, 0))
        if not count:
            return []
        kind = self.machine.settings.gpu_resource
        return manifest.device_requests(count, kind, containers.engine, containers.version)

    async def _verify(self, n: int) -> None:
        try:
            await asyncio.to_thread(self.folder.verify, n, self._layout.bound)
        except OSError as error:
            what = f"{error.filename} in {self.folder.path}"
            raise End(State.SYSTEM_ERROR, f"executor {n}: {what} cannot be mounted: {error.strerror}") from error

    def _runs(self, n: int) -> None:
        """Executor N runs: from now on its time is counted."""
        self._patience.renew()
        self.tell(State.RUNNING)
        if self._limit_s and self._clock is None:
            self._clock = asyncio.create_task(self._end_overdue(n), name=f"time limit of {self.job.id}")

    async def _stop_the_clock(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.cancel()
            await asyncio.wait([clock])

    async def _end_overdue(self, n: int) -> None:
        """Ends executor N for its time limit, also where an earlier life had only come to say so."""
        if not self._is_overdue(n):
            started = self.folder.fact(f"started-{n}") or {}
            await asyncio.sleep(self._limit_s - seconds_since(started.get("at", now())))
        for turn in itertools.count():
            try:
                return await self._stop_overdue(n)
            except (*AWAY, PlaceError, DockerError) as error:
                log.warning("task %s: executor %d is overdue, and could not be stopped yet: %s", self.job.id, n, error)
            await asyncio.sleep(RETRY_S[min(turn, len(RETRY_S) - 1)])
        return None

    async def _stop_overdue(self, n: int) -> None:
        containers, name = self.machine.containers, manifest.name(self.job.id, n)
        state = await containers.state(name)
        if state is None or state.is_over:
            return
        if not self._is_overdue(n):
            image = self.job.task.executors[n].image
            self.note(f"executor {n} ({image}): ended after its time limit of {self._limit_s:g} s")
            self._overdue.add(n)
            try:
                await self._establish(f"overdue-{n}", {"at": now()})
            except OSError as error:
                log.error("task %s: that executor %d is overdue could not be written down: %s", self.job.id, n, error)
        await containers.stop(name, self.machine.settings.grace_s)

    def _is_overdue(self, n: int) -> bool:
        return n in self._overdue or self.folder.has(f"overdue-{n}")

    def _result(self, n: int, executor: Executor, state: ContainerState) -> ExecutorLog:
        if state.out_of_memory or self.folder.ran_out_of_memory(n):
            limit_mib = ((self.job.task.resources or Resources()).ram_gb or 0) * 1024
            self.note(out_of_memory(n, executor.image, state.exit_code, limit_mib))
        if state.error:
            self.note(f"executor {n} ({executor.image}): {state.error}")
        for name in ("stdout", "stderr"):
            if odd := oddity(*self.folder.stream(n, getattr(executor, name), name)):
                self.note(f"warning: executor {n} ({executor.image}): its {name} was not read: {odd}")
        finished = stamp(state.finished)
        started = min(stamp(state.started), finished)  # Podman reads the end from a coarser clock than the start
        code = state.exit_code or (TERMINATED if self._is_overdue(n) else 0)
        return ExecutorLog(code, started, finished, *self._tails(n))

    def _tails(self, n: int) -> tuple[str, str]:
        executor, size = self.job.task.executors[n], self.machine.settings.log_tail_bytes
        stdout = tail(*self.folder.stream(n, executor.stdout, "stdout"), size)
        return stdout, tail(*self.folder.stream(n, executor.stderr, "stderr"), size)

    def _keep(self, entry: ExecutorLog) -> None:
        """Adds the log of an executor that has ended; of those before it, as much stays as may be kept of a task."""
        every = [*self.log.logs, entry]
        self.log.logs = fit(every, task_bytes(self.machine.settings.log_tail_bytes))
        if self.log.logs != every and TOO_LONG not in self.notes():
            self.note(TOO_LONG)

    def live_log(self) -> TaskLog:
        """The log with what the running executor has written so far; its exit code is -1."""
        entries = [*self.log.logs]
        if self.running is not None and self.state is State.RUNNING:
            started = (self.folder.fact(f"started-{self.running}") or {}).get("at", now())
            entries.append(ExecutorLog(-1, started, msgspec.UNSET, *self._tails(self.running)))
        return msgspec.structs.replace(self.log, logs=entries, system_logs=self.notes() or msgspec.UNSET)

    async def _push(self, failed: bool) -> None:
        """Pushes the outputs, after a failed executor too, whose error then stays the task's."""
        outputs = self.job.task.outputs
        pushed = await asyncio.to_thread(self.folder.fact, "outputs", list[OutputFileLog])
        if pushed is None and outputs:
            self.tell(State.RUNNING)
            if not is_master_of_files():
                await on_folders(self.machine, self.job.id, self.folder, "open-up")
            settings = self._filer_settings()
            if failed:
                settings = msgspec.structs.replace(settings, missing_outputs="warning")
            wanted = OutputsPlan(str(self.folder.scratch), outputs, settings, self._layout.uncopied)
            found = await self._step("outputs", wanted)
            pushed, failure = found.outputs, found.verdict
            self.log.outputs = pushed
            if failure and not failed:
                raise End(State.SYSTEM_ERROR, failure)
            if failure:
                self.note(f"error: {failure}")
            await self._establish("outputs", pushed)
        self.log.outputs = pushed or []

    def _filer_settings(self) -> FilerSettings:
        settings = self.machine.settings
        return FilerSettings(
            file_roots=settings.file_roots,
            missing_outputs=settings.missing_outputs,
            retries=settings.transfer_retries,
            timeout_s=settings.transfer_timeout_s,
            concurrency=settings.transfer_concurrency,
            allow=settings.transfer_allow,
            deny=settings.transfer_deny,
            credentials=settings.credentials,
        )


async def on_folders(machine: Machine, task_id: str, folder: Folder, command: str) -> None:
    """Runs a command of the shim as a container's root on what programs wrote, for a server that is not root."""
    labels = {"tesk.instance": machine.instance, "tesk.task": task_id}
    try:
        image = await asyncio.to_thread(folder.fact, "image", str)
        folders = await asyncio.to_thread(folder.program_folders)
        body = manifest.on_folders(image, command, folders, labels=labels, shim=machine.shim)
        await machine.containers.run_through(f"tesk-{task_id}-{command}", body)
    except (StartError, OSError) as error:
        raise PlaceError(f"task {task_id}: its files could not be reached: {error}") from error


def cancelled_log(folder: Folder, run: Run | None) -> TaskLog:
    """The log of a cancelled task: what had ended, and what the executor that was stopped had written.

    Without a run (the server was started after the request) it is read from the folder alone.
    """
    if not folder.path.exists():
        return TaskLog(system_logs=["canceled by the user before it started"])
    ended = folder.fact("ended", TaskStatus)
    if ended is not None:
        return noted(ended.log, CANCELED)
    if run is not None:
        run.note(CANCELED)
        known = run.live_log()
    else:
        known = TaskLog(start_time=folder.fact("began", str) or now(), system_logs=[*folder.notes(), CANCELED])
        while (entry := folder.fact(f"executor-{len(known.logs)}", ExecutorLog)) is not None:
            known.logs = fit([*known.logs, entry], task_bytes(0))
    for entry in known.logs:
        if entry.exit_code == -1:
            entry.exit_code, entry.end_time = TERMINATED, now()
    known.end_time = now()
    return known


def _first(problems: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = problems
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


async def _to_its_end(call: Coroutine[Any, Any, None]) -> None:
    """Awaits a call that must not be cut off half-way, even when this task is cancelled meanwhile."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
