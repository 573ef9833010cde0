"""Executors as containers, through the Docker Engine API: what tesk needs of it and no more.

A container's name is derived from the task and the executor's number, so whatever happened before, "the container of
executor N" is a question with one answer. Ends are heard by attaching to the container's streams, which close with
it: Podman answers /wait only every quarter of a second.
"""

import asyncio
import contextlib
import io
import json
import logging
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError
from msgspec import Struct
from yarl import URL

from tesk import images
from tesk.clock import now
from tesk.places.base import PlaceError

log = logging.getLogger(__name__)
CALL_TIMEOUT_S: Final = 120.0
WAIT_TIMEOUT_S: Final = 3600.0
LOOK_AGAIN_S: Final = (0.0, 0.005, 0.01, 0.02, 0.05)
PROGRESS_S: Final = 10.0
LAST_LINES: Final = 80
PRESENT_S: Final = 30.0
UNSTARTED: Final = ("created", "configured", "initialized")
LIST_AGAIN_S: Final = (0.05, 0.1, 0.2, 0.5, *(1.0,) * 20)
GONE: Final = ("container not known", "no such container")
"""How Podman says with status 500 that a container was removed while it answered."""
NO_CONNECTION: Final = 900
"""The status that aiodocker gives to an error of its own."""


class ContainerState(Struct, frozen=True):
    """What the engine says of a container: `status` as Docker names it (created, running, exited …)."""

    status: str
    exit_code: int
    started: str
    finished: str
    out_of_memory: bool = False
    error: str = ""

    @property
    def has_started(self) -> bool:
        return self.status not in UNSTARTED

    @property
    def is_over(self) -> bool:
        return self.status in ("exited", "dead", "stopped", "removing")


class EngineAway(PlaceError):
    """The container engine does not answer. It may be back soon, and what runs goes on meanwhile."""

    def __init__(self, error: object) -> None:
        super().__init__(f"the container engine does not answer: {error}")


class EnginePatience:
    """How long the engine may be away: counted from the first call that failed, and anew once the task has gone on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None

    def is_over(self, moment: float) -> bool:
        """To be asked after each call that failed."""
        if self._deadline is None:
            self._deadline = moment + self._seconds
        return moment > self._deadline

    def renew(self) -> None:
        self._deadline = None


class StartError(Exception):
    """The engine could not start a container; `code` is 127 or 126 where that is the program's fault."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ImageError(Exception):
    """An image can neither be found here nor pulled."""


class _Docker(aiodocker.Docker):
    """Tells an engine that is away from one that refuses, whatever was asked of it.

    A path is nothing but a path: aiodocker joins names into URLs as they are, so `?`, `#` and `..` are taken for parts
    of the name here, whosever it is.
    """

    def _canonicalize_url(self, path: str | URL, *, versioned_api: bool = True) -> URL:
        if isinstance(path, URL) or any(part in ("", ".", "..") for part in path.split("/")):
            raise ValueError(f"{str(path)[:200]!r} is no path of the container engine's API")
        return URL(self.docker_host).with_path(f"/{self.api_version}/{path}" if versioned_api else f"/{path}")

    async def about(self) -> tuple[str, str]:
        """The engine's name and version, by its answer to a ping. To `/version` Podman runs a dozen programs."""
        async with self._query("_ping", versioned_api=False) as answer:
            head = answer.headers
        self.api_version = f"v{head['Api-Version']}"
        if podman := head.get("Libpod-Api-Version"):
            return "Podman", podman
        return "Docker", head.get("Server", "").partition("/")[2].partition(" ")[0] or "0"

    async def _check_version(self) -> None:
        if self.api_version == "auto":
            await self.about()

    async def _do_query(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:
        try:
            return await super()._do_query(*args, **options)
        except DockerError as error:
            if error.status == NO_CONNECTION:
                raise EngineAway(error.message) from error
            if error.status == 500 and error.message.endswith(GONE):
                raise DockerError(404, error.message) from error
            raise


class Containers:
    """The containers of one tesk on one engine; `instance` tells them from those of others."""

    def __init__(self, socket: Path, instance: str) -> None:
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        connector = aiohttp.UnixConnector(str(socket), limit=0)
        self._docker = _Docker(url="unix://localhost", connector=connector, timeout=timeout)
        self._connector = connector
        self._instance = instance
        self.engine, self.version = "", ""
        self._pulls: dict[str, asyncio.Lock] = {}
        self._present: dict[str, float] = {}

    async def close(self) -> None:
        await self._docker.close()
        await self._connector.close()

    async def ping(self) -> str:
        """The engine's name and version. Raises PlaceError when it does not answer."""
        try:
            async with asyncio.timeout(10):
                self.engine, self.version = await self._docker.about()
        except (DockerError, aiohttp.ClientError, OSError) as error:
            raise EngineAway(error) from error
        except KeyError:
            raise PlaceError("what answers at the engine's socket speaks no version of Docker's API") from None
        return f"{self.engine} {self.version}"

    async def _is_here(self, image: str) -> bool:
        """True when the engine has the image, which is then believed for a while."""
        try:
            await self._docker.images.inspect(image)
        except DockerError as error:
            if error.status in (404, 400):
                return False
            raise PlaceError(f"image {image}: {error.message}") from error
        self._present[image] = time.monotonic() + PRESENT_S
        return True

    async def pull(self, image: str, note: Callable[[str], None], timeout_s: float, policy: str) -> None:
        """Pulls the image if it is not here, telling of its progress; `policy`: Always, IfNotPresent or Never, as
        Kubernetes has them. Raises ImageError."""
        is_wanted = policy == "Always"
        if not is_wanted and time.monotonic() < self._present.get(image, 0.0):
            return
        if reason := images.problem(image):
            raise ImageError(f"image: {reason}")
        async with self._pulls.setdefault(image, asyncio.Lock()):
            if not is_wanted and await self._is_here(image):
                return
            if policy == "Never":
                raise ImageError(f"image {image}: not on this machine, and executor_image_pull_policy is Never")
            note(f"image {image}: pulling")
            started = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._pull(image, note)
            except TimeoutError:
                raise ImageError(f"image {image}: not pulled within {timeout_s:.0f} s") from None
            except DockerError as error:
                raise ImageError(f"image {image}: {error.message}") from error
            except (aiohttp.ClientError, OSError) as error:
                raise EngineAway(error) from error
            except ValueError as error:
                raise ImageError(f"image {image}: {error}") from error
            if not await self._is_here(image):
                raise ImageError(f"image {image}: the engine said that it was pulled, but it is not there")
            note(f"image {image}: pulled in {time.monotonic() - started:.1f} s")

    async def _pull(self, image: str, note: Callable[[str], None]) -> None:
        told = time.monotonic()
        layers: dict[str, str] = {}
        stream: AsyncIterator[dict[str, Any]] = self._docker.images.pull(image, stream=True)
        async for line in stream:
            if line.get("error"):
                raise ImageError(f"image {image}: {line['error']}")
            if line.get("id"):
                layers[line["id"]] = str(line.get("status", ""))
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                done = sum(status in ("Pull complete", "Already exists") for status in layers.values())
                note(f"image {image}: {done} of {len(layers)} layers")

    async def image_id(self, image: str) -> str:
        """What stands for the files of an image that is here."""
        return str((await self._docker.images.inspect(image))["Id"])

    async def create(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Creates the container; that it exists already is success. Raises StartError."""
        try:
            await self._docker.containers.create(dict(configuration), name=name)
        except DockerError as error:
            self._present.pop(str(configuration["Image"]), None)
            if name not in await self.names():
                raise StartError(f"the container could not be created: {error.message}") from error

    async def start(self, name: str) -> None:
        """Starts it; that it runs already is success. Raises StartError."""
        try:
            await self._docker.containers.container(name).start()
        except DockerError as error:
            if error.status != 304:
                words = f"the container could not be started: {error.message}{_advice(error.message)}"
                raise StartError(words, _code(error.message)) from error

    async def state(self, name: str) -> ContainerState | None:
        """What the container does now; None when there is none."""
        try:
            about = (await self._docker.containers.container(name).show())["State"]
        except DockerError as error:
            if error.status == 404:
                return None
            raise
        return ContainerState(
            status=about["Status"],
            exit_code=int(about.get("ExitCode") or 0),
            started=str(about.get("StartedAt") or ""),
            finished=str(about.get("FinishedAt") or ""),
            out_of_memory=bool(about.get("OOMKilled")),
            error=str(about.get("Error") or ""),
        )

    async def run(
        self, name: str, start: Callable[[], Awaitable[None]], exit_code: Callable[[], int | None] = lambda: None
    ) -> ContainerState | None:
        """Starts a container that has never run, by `start`, and waits for its end; None when it is gone.

        `exit_code`: asked when its streams are closed; where it knows the code, the engine is not asked, which may be
        slow to say how the container ended. The streams are attached to before it starts. Never attach to a container
        that has run: Podman makes it new again, exit code and all, and Docker does not answer.
        """
        query = {"stream": "1", "stdout": "1", "stderr": "1"}
        timeout = aiohttp.ClientTimeout(total=None)
        attached, started = False, ""
        try:
            async with self._docker._query(
                f"containers/{name}/attach", "POST", params=query, timeout=timeout
            ) as streams:
                attached = True
                await start()
                started = now()
                with contextlib.suppress(aiohttp.ClientPayloadError):
                    async for _ in streams.content.iter_any():
                        pass
        except DockerError:
            if attached:
                raise
            await start()
        if started and (code := await asyncio.to_thread(exit_code)) is not None:
            return ContainerState("exited", code, started, now())
        return await self.end(name)

    async def end(self, name: str) -> ContainerState | None:
        """Waits until a container that has started is over; None when it is gone."""
        for pause_s in LOOK_AGAIN_S:
            await asyncio.sleep(pause_s)
            state = await self.state(name)
            if state is None or state.is_over:
                return state
        while state is not None and not state.is_over:
            try:
                await self._docker.containers.container(name).wait(timeout=WAIT_TIMEOUT_S)
            except (TimeoutError, DockerError) as error:
                if isinstance(error, DockerError) and error.status not in (404, 409):
                    raise
            state = await self.state(name)
        return state

    async def last_words(self, name: str) -> str:
        """What an entry point has written that came to no program; nothing where the engine keeps no logs."""
        try:
            lines = await self._docker.containers.container(name).log(stdout=True, stderr=True, tail=LAST_LINES)
        except DockerError as error:
            log.info("the log of container %s cannot be had: %s", name, error.message)
            return ""
        return "".join(lines)

    async def make_directory(self, name: str, path: str) -> None:
        """Makes a directory that any user can write, in a container that has not started, unless it is there."""
        container = self._docker.containers.container(name)
        try:
            async with self._docker._query(f"containers/{name}/archive", "HEAD", params={"path": path}):
                return
        except (DockerError, ValueError) as error:  # aiodocker looks for JSON in the answer to HEAD
            log.debug("working directory %s is not in the image: %s", path, error)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(path.strip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        try:
            await container.put_archive("/", archive.getvalue())  # type: ignore[no-untyped-call]
        except DockerError as error:
            raise StartError(f"working directory {path}: {error.message}") from error

    async def stop(self, name: str, grace_s: float) -> None:
        """TERM, then KILL after the grace period; that it does not run is success."""
        seconds = int(grace_s + 0.999)
        try:
            await self._docker.containers.container(name).stop(t=seconds, timeout=grace_s + CALL_TIMEOUT_S)
        except DockerError as error:
            if error.status not in (304, 404, 409):
                raise PlaceError(f"container {name} could not be stopped: {error.message}") from error

    async def remove(self, name: str) -> None:
        """Removes it with its anonymous volumes, running or not; that there is none is success."""
        try:
            await self._docker.containers.container(name).delete(force=True, v=True)
        except DockerError as error:
            if error.status not in (404, 409):
                raise PlaceError(f"container {name} could not be removed: {error.message}") from error

    async def run_through(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Runs a container of ours to its end and removes it. Raises StartError when it fails."""
        await self.remove(name)
        try:
            await self.create(name, configuration)
            state = await self.run(name, lambda: self.start(name))
        finally:
            await self.remove(name)
        if state is None or state.exit_code:
            raise StartError(f"container {name} ended with exit code {state.exit_code if state else 'unknown'}")

    async def names(self, task_id: str | None = None, *, started: bool = False) -> dict[str, str]:
        """Names of this instance's containers and the task of each; of one task when it is named. `started`: only of
        those that have been started.

        A container that is being removed may have no name any more; its id stands for it. Raises PlaceError.
        """
        wanted = [f"tesk.instance={self._instance}"] + ([f"tesk.task={task_id}"] if task_id else [])
        found = await self._listed(json.dumps({"label": wanted}))
        found = [each for each in found if not started or each["State"] not in UNSTARTED]
        names = [(each["Names"] or [each["Id"]])[0].lstrip("/") for each in found]
        return {name: each["Labels"]["tesk.task"] for name, each in zip(names, found, strict=True)}

    async def _listed(self, filters: str) -> list[Any]:
        """Asks a few times: Podman refuses a whole list when one of the containers is removed meanwhile."""
        pauses = iter(LIST_AGAIN_S)
        while True:
            try:
                return list(await self._docker.containers.list(all="true", filters=filters))
            except DockerError as error:
                pause_s = next(pauses, None)
                if error.status != 404 or pause_s is None:
                    words = f"the container engine does not list its containers: {error.message}"
                    raise PlaceError(words) from error
            await asyncio.sleep(pause_s)


def _advice(message: str) -> str:
    """What to do about a container that does not start, where that is known; begins with a semicolon."""
    if "device driver" in message or "CDI device" in message:
        return "; this machine has no such GPUs, or its container engine is not set up for them"
    return ""


def _code(message: str) -> int | None:
    """The exit code a shell would give where the engine's words blame the program; None where they do not."""
    words = message.lower()
    if "argument list too long" in words:
        return 126
    return None


async def to_its_end(call: Coroutine[Any, Any, None]) -> None:
    """Awaits a call that must not be cut off half-way, even when this task is cancelled meanwhile."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
