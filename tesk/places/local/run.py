"""One task's way through its life on this machine: inputs, executors one by one, outputs, end.

Every step leaves a fact behind (see folder.py) or a container with a name of its own, and begins by asking whether it
has been done. So a life can be begun again after a crash at any line: what ran is not run twice, what runs is waited
for, and what was cut off is done again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiodocker.exceptions import DockerError
from msgspec.structs import replace

from tesk import parameters
from tesk.clock import now, stamp, steady
from tesk.filer import scratch
from tesk.filer.plan import FilerSettings, InputsPlan, OutputsPlan, Plan, Progress
from tesk.layout import Found, Layout, doubtful, layout, occupied, read_answer, to_look_at
from tesk.life import steps
from tesk.life.facts import Facts, TaskStep
from tesk.life.log import CANCELED_EARLY, cancelled, noted, running
from tesk.life.log_bound import task_bytes
from tesk.life.outcome import End, left_s
from tesk.life.status import TaskStatus
from tesk.life.transfer import Transfer
from tesk.places.base import Job, PlaceError
from tesk.places.local import manifest
from tesk.places.local.containers import ContainerState, EngineAway, EnginePatience, ImageError, StartError, to_its_end
from tesk.places.local.executors import Executors, Program
from tesk.places.local.filers import last_progress, read_report
from tesk.places.local.folder import BOOT, Folder, is_master_of_files, recalled
from tesk.places.local.machine import Machine
from tesk.retry import pauses
from tesk.rules.filing import filer_settings
from tesk.tails import oddity, tail
from tesk.tes import ExecutorLog, FileTypes, Resources, State, TaskLog

log = logging.getLogger(__name__)
PAUSES_S: Final = (0.2, 5.0)
LOOK_EVERY_S: Final = 2.0
AWAY: Final = (EngineAway, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, TimeoutError)
"""What a call fails with when the container engine goes away before it or in its midst."""
CANNOT_STOP: Final = (*AWAY, PlaceError, DockerError)
STOP_AGAIN_S: Final = 1.0


class ImageChanged(Exception):
    """An image's name means another image than what the task's files were laid out for. No program of it has run."""


class Run:
    """The life of one task. `live` runs it; `log` is what is known of it; `report` hears of every change."""

    def __init__(self, job: Job, folder: Folder, machine: Machine, report: Callable[[TaskStatus], None]) -> None:
        self.job = job
        self.folder = folder
        self.machine = machine
        self.facts = Facts(TaskLog(start_time=now()))
        self.state = State.INITIALIZING
        self.types = FileTypes()
        self.running: int | None = None
        self._report = report
        self._patience = EnginePatience(machine.settings.engine_patience_s)
        self._program: Program | None = None
        self._seen: steps.Seen | None = None
        self._now = steady()
        self._layout = Layout()
        self._given = parameters.given(job.task, machine.settings.allowed_backend_parameters)
        self._executors = Executors(job, folder, machine, self._given)
        self._policy = steps.Policy(
            time_limit_s=parameters.time_limit_s(self._given, machine.settings.executor_timeout_s),
            memory_limit_mib=((job.task.resources or Resources()).ram_gb or 0) * 1024,
            log_bytes=task_bytes(machine.settings.log_tail_bytes),
        )
        self._resumed = folder.path.exists()
        self._has_looked = self._resumed

    @property
    def log(self) -> TaskLog:
        return self.facts.log

    def note(self, line: str) -> None:
        """Adds a line to the system log."""
        self.facts.log = noted(self.log, line)
        self._write_down(line)

    def _write_down(self, line: str) -> None:
        """Keeps a line of the system log; where it cannot be written, as on a full disk, it is in memory alone."""
        try:
            self.folder.note(line)
        except OSError as error:
            log.error("task %s: a line of its system log could not be written: %s", self.job.id, error)

    def containers(self) -> list[str]:
        """The names of the containers that it has made, or was about to make."""
        names = self._executors.names()
        return [*names, manifest.name(self.job.id, manifest.LOOK)] if self._has_looked else names

    def tell(self, state: State) -> None:
        """Reports the state with the log as it is."""
        self.state = state
        self._report(TaskStatus(state, replace(self.log, logs=[*self.log.logs]), types=self.types))

    async def live(self) -> None:
        """Runs the task to its end and reports it. Cancelling the call leaves the containers alone."""
        try:
            if ended := self.folder.fact("ended", TaskStatus):
                self.facts.log = ended.log
                return self._report(ended)
            if self._resumed:
                await self._recall()
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

    async def _recall(self) -> None:
        """Takes up what an earlier life has learnt."""
        self.facts = await asyncio.to_thread(recalled, self.folder, self._policy.log_bytes)
        for name in self.folder.unreadable():
            self.note(f"warning: the fact {name!r} cannot be read, as after a power cut; it counts as absent")

    async def _establish(self, name: str, value: Any, *, durable: bool = False) -> None:
        """Makes the fact so, off the event loop: a slow disk holds up this task alone."""
        await to_its_end(asyncio.to_thread(self.folder.establish, name, value, durable=durable))

    async def _conclude(self, state: State) -> None:
        """Ends the task. The fact is for a server that ends before the end is in the store, and need not be durable."""
        self.log.end_time = now()
        self.tell(state)
        try:
            await self._establish("ended", TaskStatus(state, self.log, types=self.types))
        except OSError as error:
            log.error("task %s: its end (%s) could not be written down: %s", self.job.id, state.name, error)

    async def _patiently(self) -> None:
        """The life, taken up again where it stands while the container engine is away."""
        for pause_s in pauses(*PAUSES_S):
            try:
                await self._life()
            except AWAY as error:
                away = error if isinstance(error, EngineAway) else EngineAway(repr(error))
                if self._patience.is_over(asyncio.get_running_loop().time()):
                    raise End(State.SYSTEM_ERROR, str(away)) from error
                log.warning("task %s: %s; trying again", self.job.id, away)
            except ImageChanged as error:
                log.info("task %s: %s; beginning again", self.job.id, error)
                await asyncio.to_thread(scratch.scrub, str(self.folder.scratch))
            except DockerError as error:
                raise End(State.SYSTEM_ERROR, f"the container engine refused: {error.message}") from error
            except PlaceError as error:
                raise End(State.SYSTEM_ERROR, str(error)) from error
            finally:
                if self._program is not None:
                    await self._program.close()
                await self._executors.close()
                self._program = self._seen = None
            self._resumed = True
            await asyncio.sleep(pause_s)

    async def _life(self) -> None:
        self.folder.make()
        self._refuse_after_a_boot()
        self.types = self.folder.fact("types", FileTypes) or FileTypes()
        self.facts = replace(self.facts, staged=False)
        while True:
            step = steps.due(self.job.task, self.facts, self._policy)
            seen = await self._see(step) if isinstance(step, TaskStep) else steps.Starting()
            actions = steps.next_actions(self.job.task, self.facts, seen, self._now(), self._policy)
            try:
                for action in actions:
                    await self._perform(action)
            except StartError as error:
                self._seen = self._not_started(error)
            if not actions and self._program is not None:
                await self._program.wait(self._left_s(self._program))

    def _left_s(self, program: Program) -> float | None:
        """Seconds until the program is to be stopped for its time limit; None where it has none, or has reached it."""
        if program.is_over or program.n in self.facts.timed_out:
            return None
        left = left_s(self.facts, self._policy.time_limit_s, self._now())
        return None if left is None else max(0.0, left)

    async def _see(self, step: TaskStep) -> steps.Seen:
        """What is seen of a step. What an action has come to at once is known without a look."""
        if (seen := self._seen) is not None:
            self._seen = None
            return seen
        if step.role != "executor":
            return steps.Absent(is_asked=True)
        n = step.n
        if self._executors.prepared is not None:
            return steps.Absent()
        if self._program is None:
            state = await self._executors.state(n) if self._resumed else None
            if state is None and self.folder.has(f"started-{n}"):
                return self._gone(n)
            if state is None or not state.has_started:
                return steps.Absent()
            if state.is_over:
                return await self._ended(n, state)
            self.running, self._program = n, self._executors.found(n)
        return await self._see_program(self._program)

    async def _see_program(self, program: Program) -> steps.Seen:
        n = program.n
        if program.ended.done():
            self.running = self._program = None
            try:
                state = await program.ended
            except StartError as error:
                return self._not_started(error)
            return self._gone(n) if state is None else await self._ended(n, state)
        if not program.started.done() or (self._left_s(program) == 0 and await self._is_over(program)):
            return steps.Starting()
        at = (self.folder.fact(f"started-{n}") or {}).get("at", now())
        return steps.AtWork(at, program.is_stopping)

    async def _is_over(self, program: Program) -> bool:
        """True when a program that has reached its time limit has just ended by itself, or cannot be stopped yet."""
        try:
            state = await self._executors.state(program.n)
        except CANNOT_STOP as error:
            await self._stop_later(program, error)
            return True
        program.is_over = state is None or state.is_over
        return program.is_over

    async def _stop_later(self, program: Program, error: Exception) -> None:
        log.warning("task %s: executor %d is overdue, and could not be stopped yet: %s", self.job.id, program.n, error)
        await asyncio.wait([program.ended], timeout=STOP_AGAIN_S)

    def _gone(self, n: int) -> steps.Seen:
        return steps.Gone(f"executor {n}: its container {self._executors.name(n)} was removed by somebody else")

    def _not_started(self, error: StartError) -> steps.Seen:
        """What an executor comes to that cannot be started: an end, where the engine's words blame its program."""
        n = len(self.log.logs)
        if error.code is None:
            return steps.Hopeless(f"executor {n} ({self.job.task.executors[n].image}): {error}")
        return steps.ExecutorEnded(ExecutorLog(error.code, now(), now(), stderr=f"tesk: {error}"))

    async def _perform(self, action: steps.Action) -> None:
        """Does what is to be done. Everything that is learnt is kept at once. Raises End."""
        match action:
            case steps.Learn(facts):
                await self._learn(facts)
            case steps.SetState(state):
                self._patience.renew()
                self.tell(state)
            case steps.Finish(state, reason):
                raise End(state, reason)
            case steps.Ask(TaskStep("executor", n)):
                if not await self._executors.is_prepared():
                    await self._prepare(n)
                await self._establish(f"started-{n}", {"at": now(), "boot": BOOT}, durable=True)
            case steps.Start(TaskStep("executor", n)):
                self.running, self._program = n, self._executors.start()
            case steps.Start(TaskStep("inputs")):
                self._seen = steps.FilerEnded(await self._initialize())
            case steps.Start():
                self._seen = steps.FilerEnded(await self._push())
            case steps.Stop() if self._program is not None:
                await self._stop(self._program)

    async def _learn(self, facts: Facts) -> None:
        """Writes down what is new in the facts."""
        before, self.facts = self.facts, facts
        known, lines = len(before.log.system_logs or ()), facts.log.system_logs or []
        if len(facts.log.logs) > len(before.log.logs):
            await self._establish(f"executor-{len(before.log.logs)}", facts.log.logs[-1])
        for n in set(facts.timed_out) - set(before.timed_out):
            try:
                await self._establish(f"overdue-{n}", {"at": now()})
            except OSError as error:
                log.error("task %s: that executor %d is overdue could not be written down: %s", self.job.id, n, error)
        for line in lines[known:]:
            self._write_down(line)
        if facts.pushed and not before.pushed:
            await self._establish("outputs", facts.log.outputs)
        if facts.staged or facts.log.logs:
            self._patience.renew()

    def _refuse_after_a_boot(self) -> None:
        """Raises End where the machine was started anew since an executor began: it may have gone down without writing
        the scratch volume to disk, and what is cut short there would go into the outputs unseen."""
        started = self.folder.fact("started-0")
        if started and started.get("boot", BOOT) != BOOT:
            why = "this machine was started anew while the task ran, and what its programs had written may not be whole"
            raise End(State.SYSTEM_ERROR, f"{why}; it is not run again")

    async def _initialize(self) -> Transfer:
        """Inputs, images and the first container, at the same time; the first failure ends all. Where inputs lie may
        depend on the images: they come first then."""
        asked = await asyncio.to_thread(doubtful, self.job.task)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._begin())
                images = [group.create_task(self._pull(image)) for image in self._images()]
                fetching = group.create_task(self._lay_out_and_fetch(asked, images))
        except BaseExceptionGroup as problems:
            raise _first(problems) from None
        return fetching.result()

    async def _begin(self) -> None:
        """Makes the folder durable, by which a later server knows that the task has begun, and then tells it."""
        if self.folder.fact("began", str) is None:
            await asyncio.to_thread(self.folder.keep)
            await self._establish("image", self.job.task.executors[0].image, durable=True)
            await self._establish("began", self.log.start_time)
        self.tell(State.INITIALIZING)

    def _images(self) -> list[str]:
        return [*dict.fromkeys(executor.image for executor in self.job.task.executors)]

    async def _lay_out_and_fetch(self, asked: Sequence[str], images: Sequence[asyncio.Task[None]]) -> Transfer:
        """Fetches the inputs to where the containers will have them. What was found then holds for all of the task: it
        is on record before the inputs are, and so before any start."""
        found: Found | None = self.folder.fact("found", Found)
        is_new = found is None and bool(asked) and not self.folder.has("inputs")
        believed: dict[str, str] = {}
        if is_new:
            await asyncio.gather(*images)
            found = Found(await self._look(asked, believed))
        found = found or Found()
        self._layout = await asyncio.to_thread(layout, self.job.task, found)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._keep(found, believed)) if is_new else None
            group.create_task(self._prepare_first(images[0]))
            fetching = group.create_task(self._fetch(found, keeping))
        return fetching.result()

    async def _prepare_first(self, image: asyncio.Task[None]) -> None:
        """Prepares the first executor while its inputs are on their way. All that is mounted must be directories, since
        those are there beforehand and stay the same."""
        plan = self._layout
        if self.folder.has("started-0") or plan.files or plan.has_copies:
            return
        if not plan.is_empty:
            await asyncio.to_thread(scratch.prepare, str(self.folder.scratch), plan.mounts, ())
        await image
        await self._prepare(0)

    async def _prepare(self, n: int) -> None:
        await self._executors.prepare(n, self._layout, anew=self._resumed)

    async def _look(self, asked: Sequence[str], believed: dict[str, str]) -> dict[str, bool]:
        """What the images have in these directories, for `layout`. An image of which that is known is taken for what it
        was when last seen, which goes into `believed`."""
        looks, answers = self.machine.looks, []
        for image in self._images():
            if image_id := looks.last_id(image, asked):
                believed[image] = image_id
            answers.append(await looks.at(image_id or await self._identified(image), asked, partial(self._ask, image)))
        return occupied(asked, answers)

    async def _identified(self, image: str) -> str:
        image_id = await self.machine.containers.image_id(image)
        self.machine.looks.name(image, image_id)
        return image_id

    async def _keep(self, found: Found, believed: dict[str, str]) -> None:
        """Puts on record what was found once the images are known to be what they were believed to be, while the first
        container is being made. Raises ImageChanged."""
        for image, image_id in believed.items():
            if await self._identified(image) != image_id:
                raise ImageChanged(f"image {image} is another than a moment ago")
        await self._establish("found", found, durable=True)

    async def _ask(self, image: str, asked: Sequence[str]) -> dict[str, int]:
        """What an image has at these paths. One that cannot be run counts as empty: its executor will say why."""
        self._has_looked, paths = True, to_look_at(asked)
        control = await asyncio.to_thread(self.folder.question, manifest.LOOK)
        labels = self.machine.labels(self.job.id)
        body = manifest.looking(image, paths, labels=labels, shim=self.machine.shim, control=control)
        try:
            await to_its_end(self.machine.containers.run_through(manifest.name(self.job.id, manifest.LOOK), body))
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

    async def _fetch(self, found: Found, keeping: asyncio.Task[None] | None) -> Transfer:
        """Fetches the inputs, which are on record as soon as `found` is, whatever still holds up the container."""
        fetched = self.folder.fact("inputs")
        if self.folder.has("started-0") or (fetched and fetched.get("boot", BOOT) == BOOT):
            return Transfer(is_done=True)
        plan, root, moved = self._layout, str(self.folder.scratch), Transfer(is_done=True)
        inputs = self.job.task.inputs
        if inputs:
            directories, touched = [*plan.directories], [*plan.touched]
            wanted = InputsPlan(root, inputs, directories, touched, self._filer_settings(), plan.uncopied)
            moved = await self._step("inputs", wanted)
            if moved.verdict:
                for line in moved.notes():
                    self.note(line)
                raise End(State.SYSTEM_ERROR, moved.verdict)
        elif not plan.is_empty:
            await asyncio.to_thread(scratch.prepare, root, plan.directories, plan.touched)
        if keeping is not None:
            await keeping
        if moved.alone:
            found.alone += moved.alone
            await self._establish("found", found, durable=True)
            self._layout = await asyncio.to_thread(layout, self.job.task, found)
        await self._establish("inputs", {"done": now(), "boot": BOOT})
        return moved

    async def _step(self, name: str, plan: Plan) -> Transfer:
        """Runs the filer; what it has said."""
        report = self.folder.path / f"{name}.jsonl"
        watching = asyncio.create_task(self._watch(report), name=f"progress of {self.job.id}")
        try:
            await self.machine.filers.run(f"{self.job.id}/{name}", plan, self.folder.path, report)
        finally:
            watching.cancel()
            found = await asyncio.to_thread(read_report, report)
            self._moved(found.progress)
        if found.types:
            self.types = replace(self.types, **{name: found.types})
            await self._establish("types", self.types)
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

    async def _stop(self, program: Program) -> None:
        """Stops an executor for its time limit."""
        program.is_stopping = True
        try:
            await self._executors.stop(program.n)
        except CANNOT_STOP as error:
            await self._stop_later(program, error)
            program.is_stopping = False

    async def _ended(self, n: int, state: ContainerState) -> steps.ExecutorEnded:
        executor, notes = self.job.task.executors[n], []
        if state.error:
            notes.append(f"executor {n} ({executor.image}): {state.error}")
        for name in ("stdout", "stderr"):
            if odd := oddity(*self.folder.stream(n, getattr(executor, name), name)):
                notes.append(f"warning: executor {n} ({executor.image}): its {name} was not read: {odd}")
        finished = stamp(state.finished)
        started = min(stamp(state.started), finished)  # Podman reads the end from a coarser clock than the start
        entry = ExecutorLog(state.exit_code, started, finished, *self._tails(n))
        has_failed = bool(entry.exit_code) or n in self.facts.timed_out
        if parameters.ENTRYPOINT in self._given and has_failed and not (entry.stdout or entry.stderr):
            entry.stderr = await self._executors.last_words(n)
        out_of_memory = state.out_of_memory or self.folder.ran_out_of_memory(n)
        return steps.ExecutorEnded(entry, out_of_memory, notes=tuple(notes))

    def _tails(self, n: int) -> tuple[str, str]:
        executor, size = self.job.task.executors[n], self.machine.settings.log_tail_bytes
        stdout = tail(*self.folder.stream(n, executor.stdout, "stdout"), size)
        return stdout, tail(*self.folder.stream(n, executor.stderr, "stderr"), size)

    def live_log(self) -> TaskLog:
        """The log with what the running executor has written so far."""
        n = self.running
        if n is None or self.state is not State.RUNNING:
            return self.log
        started = (self.folder.fact(f"started-{n}") or {}).get("at", now())
        return running(self.log, started, *self._tails(n))

    async def _push(self) -> Transfer:
        """Pushes the outputs, after a failed executor too."""
        self.tell(State.RUNNING)
        if not is_master_of_files():
            await self.machine.on_folders(self.job.id, self.folder, "open-up")
        settings = self._filer_settings()
        if steps.has_failed(self.job.task, self.facts):
            settings = replace(settings, missing_outputs="warning")
        outputs = self.job.task.outputs or []
        return await self._step(
            "outputs", OutputsPlan(str(self.folder.scratch), outputs, settings, self._layout.uncopied)
        )

    def _filer_settings(self) -> FilerSettings:
        storage = self.job.granted.storage
        credentials = {prefix: rule.credentials for prefix, rule in storage.items() if rule.credentials}
        return filer_settings(FilerSettings.of(self.machine.settings), self.job.granted, credentials)


def cancelled_log(folder: Folder, run: Run | None) -> TaskLog:
    """The log of a cancelled task: what had ended, and what the executor that was stopped had written.

    Without a run (the server was started after the request) it is read from the folder alone.
    """
    if not folder.path.exists():
        return TaskLog(system_logs=[CANCELED_EARLY])
    if ended := folder.fact("ended", TaskStatus):
        return cancelled(ended.log, has_ended=True)
    return cancelled(run.live_log() if run is not None else recalled(folder, task_bytes(0)).log)


def _first(problems: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = problems
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
