"""The rights of the server and of its taskmasters: with them everything works, and each is used.

For each verb there is an account that lacks it. Something is done that needs it, which the API refuses and somebody
says; with the verb given back it ends as it should. All of that at once, for a test that is over soon.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import yaml

from tesk.identity import EVERYBODY
from tesk.places.kubernetes import rights
from tests.engines import strikes
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.engines.running import Document, Tesk, content, running, sh, started
from tests.servers.cluster import account, may, until
from tests.servers.containers import ENTRY_IMAGE, IMAGE

pytestmark = pytest.mark.places(*KUBERNETES)

Right = tuple[str, str]
SECONDS: Final = 600.0


def pairs(needed: Mapping[str, tuple[str, ...]]) -> set[Right]:
    return {(kind, verb) for kind, verbs in needed.items() for verb in verbs}


def without(right: Right, needed: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    kind, verb = right
    return {**needed, kind: tuple(each for each in needed[kind] if each != verb)}


def name_of(role: str, right: Right) -> str:
    """An account's name, by the right that it lacks."""
    return "-".join([role, right[1], *right[0].split("/")])


class Accounts:
    """Accounts in the place's namespace, with Roles of their own."""

    def __init__(self, place: KubernetesPlace, folder: Path) -> None:
        self._place, self._folder = place, folder

    async def grant(self, **needed: Mapping[str, tuple[str, ...]]) -> None:
        """Makes accounts, or changes their rights."""
        made = [account(self._place.namespace, name, of) for name, of in needed.items()]
        await asyncio.to_thread(self._place.cluster.apply, *(each for objects in made for each in objects))

    async def may(self, name: str, right: Right) -> None:
        """Returns once the API server knows that an account has a right."""
        kind, verb = right
        await asyncio.to_thread(until, lambda: may(self._place.cluster, self._place.namespace, name, verb, kind))

    async def kubeconfig(self, name: str) -> str:
        """A kubeconfig file of an account."""
        command = ("-n", self._place.namespace, "create", "token", name)
        token = (await asyncio.to_thread(self._place.cluster.kubectl, *command)).strip()
        config = yaml.safe_load(self._place.cluster.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token}
        path = self._folder / f"{name}.conf"
        path.write_text(yaml.safe_dump(config))
        return str(path)


@pytest.fixture
def accounts(place: KubernetesPlace, tmp_path: Path) -> Accounts:
    return Accounts(place, tmp_path)


@contextlib.asynccontextmanager
async def apart(place: KubernetesPlace, folder: Path, **changes: Any) -> AsyncIterator[Tesk]:
    """A tesk that shares nothing with the others; nothing is left of it."""
    folder.mkdir(exist_ok=True)
    settings = msgspec.structs.replace(place.settings(folder), **changes)
    async with started(settings) as tesk:
        yield tesk
        assert await place.leftovers(settings) == []


async def until_said(said: Callable[[], Awaitable[str]], *words: str) -> None:
    """Returns when any of these words are in what `said` gives."""
    async with asyncio.timeout(SECONDS):
        while not any(each in text for text in [await said()] for each in words):  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def readyz(tesk: Tesk) -> str:
    return await tesk.dispatcher.ready() or "it is ready"


def refusal(right: Right) -> str:
    """The API's own words."""
    kind, verb = right
    return f'cannot {verb} resource "{kind}"'


async def listen(tesk: Tesk, granted: asyncio.Event) -> str:
    """No task: the server looks at what there is, and waits for changes."""
    await granted.wait()
    return ""


async def run(tesk: Tesk, granted: asyncio.Event) -> str:
    return str((await tesk.run(executors=[sh("true")]))["state"])


async def run_with_volume(tesk: Tesk, granted: asyncio.Event) -> str:
    return str((await tesk.run(executors=[sh("cat /mnt/in/a")], inputs=[content("/mnt/in/a")]))["state"])


async def look_and_cancel(tesk: Tesk, granted: asyncio.Event) -> str:
    task_id = await tesk.create(executors=[sh("echo so far; sleep 3600")])
    await tesk.until(task_id, running, SECONDS)
    await tesk.dispatcher.live_log(task_id, EVERYBODY)
    await tesk.dispatcher.cancel(task_id, EVERYBODY)
    return str((await tesk.ended(task_id, SECONDS))["state"])


async def get_no_pod(tesk: Tesk, granted: asyncio.Event) -> str:
    """A task whose Job gets no pod, as only the cluster's events tell."""
    task = await tesk.run(executors=[sh("true")])
    assert "error looking up service account" in task["logs"][0]["system_logs"][-1]
    return str(task["state"])


async def wait_for_a_mount(tesk: Tesk, granted: asyncio.Event) -> str:
    """A task whose pod waits for a Secret that is not there, as only its events tell."""
    task_id = await tesk.create(executors=[sh("true")], inputs=[content("/mnt/in/a")])
    await tesk.until(task_id, lambda task: "FailedMount" in json.dumps(task["logs"]), SECONDS)
    await tesk.dispatcher.cancel(task_id, EVERYBODY)
    return str((await tesk.ended(task_id, SECONDS))["state"])


async def begin_again(tesk: Tesk, granted: asyncio.Event) -> str:
    """A task of which a server that was killed had made the objects, and heard nothing."""
    task_id = await tesk.create(executors=[sh("true")])
    await tesk.until(task_id, lambda task: "nodes are available" in json.dumps(task["logs"]), SECONDS)
    await tesk.restart()
    await granted.wait()
    await tesk.dispatcher.cancel(task_id, EVERYBODY)
    return str((await tesk.ended(task_id, SECONDS))["state"])


class Use(NamedTuple):
    """What needs a right of the server, the state that it ends in, and settings that it takes."""

    action: Callable[[Tesk, asyncio.Event], Awaitable[str]]
    end: str
    settings: dict[str, Any] = {}  # noqa: RUF012


USES: Final[dict[Right, Use]] = {
    **{(kind, verb): Use(listen, "") for kind in ("jobs", "configmaps", "pods") for verb in ("list", "watch")},
    **{(kind, "create"): Use(run, "COMPLETE") for kind in ("jobs", "secrets")},
    **{(kind, "delete"): Use(run, "COMPLETE") for kind in ("jobs", "secrets", "configmaps")},
    **{
        right: Use(look_and_cancel, "CANCELED")
        for right in (("jobs", "patch"), ("pods", "delete"), ("pods/log", "get"))
    },
    ("persistentvolumeclaims", "delete"): Use(run_with_volume, "COMPLETE"),
    ("events", "list"): Use(get_no_pod, "SYSTEM_ERROR", {"taskmaster_service_account": "nobody"}),
    ("jobs", "get"): Use(begin_again, "CANCELED", {"node_selector": ("no-such=node",)}),
}
ABSENT: Final = {"filer_mounts": ("/k=secret:absent",)}
POD_USES: Final[dict[Right, Use]] = {
    **{("pods", verb): Use(listen, "") for verb in ("list", "watch")},
    **{right: Use(run_with_volume, "COMPLETE") for right in (("secrets", "create"), ("secrets", "delete"))},
    ("pods", "create"): Use(run_with_volume, "COMPLETE"),
    **{right: Use(look_and_cancel, "CANCELED") for right in (("pods", "delete"), ("pods/log", "get"))},
    ("events", "list"): Use(wait_for_a_mount, "CANCELED", ABSENT),
}
"""Of tasks that are one pod each. The server's other rights are for tasks that have a taskmaster."""
SHARED: Final = {(kind, verb) for kind in ("jobs", "configmaps") for verb in ("list", "watch")}
"""It looks at these in every mode, before it knows what there is."""


def only(chosen: set[Right]) -> dict[str, tuple[str, ...]]:
    """Rights by kind."""
    kinds = sorted({kind for kind, _ in chosen})
    return {kind: tuple(sorted(verb for other, verb in chosen if other == kind)) for kind in kinds}


@pytest.mark.parametrize(
    ("mode", "needed", "uses", "enough"),
    [
        ("taskmaster", rights.NEEDED, USES, rights.NEEDED | rights.OPTIONAL),
        ("pod", rights.WITH_PODS, POD_USES, only(SHARED | POD_USES.keys()) | rights.OPTIONAL),
    ],
    ids=["with taskmasters", "of one each"],
)
async def test_the_server_uses_each_of_its_rights_and_needs_no_other(
    place: KubernetesPlace, accounts: Accounts, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str,
    needed: Mapping[str, tuple[str, ...]], uses: Mapping[Right, Use], enough: Mapping[str, tuple[str, ...]],
) -> None:  # fmt: skip
    """`enough`: all that the tasks of the mode need, of what the server may."""
    assert USES.keys() == pairs(rights.NEEDED)
    assert USES.keys() | POD_USES.keys() == pairs(rights.WITH_PODS)
    caplog.set_level("INFO")
    names = {right: name_of(mode, right) for right in uses}
    full = f"full-{mode}"
    await accounts.grant(**{full: enough}, **{name: without(right, needed) for right, name in names.items()})
    await accounts.may(full, ("pods", "list"))

    async def said(tesk: Tesk) -> str:
        return f"{caplog.text} {await readyz(tesk)}"

    async def lacking(right: Right) -> None:
        name, granted = names[right], asyncio.Event()
        action, end, changes = uses[right]
        kubeconfig = await accounts.kubeconfig(name)
        async with apart(place, tmp_path / name, kubeconfig=kubeconfig, mode=mode, **changes) as tesk:
            work = asyncio.ensure_future(action(tesk, granted))
            await until_said(lambda: said(tesk), f':{name}" {refusal(right)}')
            await until_said(lambda: readyz(tesk), f"{right[1]} {right[0]}", refusal(right))
            await accounts.grant(**{name: needed})
            granted.set()
            assert await work == end
            await until_said(lambda: readyz(tesk), "it is ready")

    async def complete() -> None:
        async with apart(place, tmp_path / full, kubeconfig=await accounts.kubeconfig(full), mode=mode) as tesk:
            assert await run_with_volume(tesk, asyncio.Event()) == "COMPLETE"
            assert await look_and_cancel(tesk, asyncio.Event()) == "CANCELED"
            for kind, verb in pairs(needed) - pairs(enough):
                await until_said(lambda: readyz(tesk), f"{verb} {kind}")
            if pairs(needed) <= pairs(enough):
                await until_said(lambda: readyz(tesk), "it is ready")

    await asyncio.gather(complete(), *map(lacking, uses))
    assert caplog.text.count(f':{full}"') == 0


class Step(NamedTuple):
    """What needs a right of the taskmaster: a task and settings; and the state that it ends in.

    `loses`: a pod of it is deleted by hand while it runs. `meets`: a pod of that name is there already, not its own.
    `until`: it is cancelled when this is in its logs.
    """

    document: Document = {"executors": [sh("echo words")], "volumes": ["/v"]}  # noqa: RUF012
    end: str = "COMPLETE"
    settings: dict[str, Any] = {}  # noqa: RUF012
    loses: str = ""
    meets: str = ""
    until: str = ""


LONG: Final = {"executors": [sh("sleep 3600")], "volumes": ["/v"]}
UNTOLD: Final = {
    "executors": [{"image": ENTRY_IMAGE, "command": ["true"], "env": {"FAIL": "yes"}}],
    "resources": {"backend_parameters": {"entrypoint": "image"}},
}
"""An entry point that comes to no program: nothing of ours is there to tell of its end."""
STEPS: Final = {
    ("pods", "get"): Step(LONG, "SYSTEM_ERROR", meets="executor-0"),
    ("pods", "delete"): Step({"executors": [sh("sleep 3600")]}, "EXECUTOR_ERROR", {"executor_timeout_s": 1.0}),
    ("pods/log", "get"): Step(UNTOLD, "EXECUTOR_ERROR"),
    ("persistentvolumeclaims", "delete"): Step(
        LONG, "CANCELED", {"retries": 1}, loses="executor-0", until="trying again"
    ),
    ("events", "list"): Step(end="CANCELED", settings={"filer_mounts": ("/k=secret:absent",)}, until="MountVolume"),
}


async def test_a_taskmaster_uses_each_of_its_rights_and_needs_no_other(
    place: KubernetesPlace, accounts: Accounts, tmp_path: Path
) -> None:
    names = {right: name_of("of-taskmaster", right) for right in pairs(rights.TASKMASTER)}
    reduced = {name: without(right, rights.TASKMASTER) for right, name in names.items()}
    await accounts.grant(complete=rights.TASKMASTER, **reduced)
    await accounts.may("complete", ("pods", "list"))

    async def lacking(right: Right) -> None:
        await live(names[right], STEPS.get(right, Step()), refusal(right))

    async def live(name: str, step: Step, refused: str = "") -> None:
        changes = {"taskmaster_service_account": name, **step.settings}
        async with apart(place, Path(mkdtemp(dir=tmp_path)), **changes) as tesk:
            if step.meets:  # it has to be there first
                await tesk.dispatcher.stop()
            task_id = await tesk.create(**step.document)
            if step.meets:
                await asyncio.to_thread(place.cluster.apply, foreign_pod(place, f"tesk-{task_id}-{step.meets}"))
                await tesk.restart()
            if step.loses:
                await tesk.until(task_id, running, SECONDS)
                await delete_pod(place, f"tesk-{task_id}-{step.loses}")
            if refused:
                await until_said(lambda: taskmaster_log(place, task_id), refused)
                await accounts.grant(**{name: rights.TASKMASTER})
            if step.until:
                await tesk.until(task_id, lambda task: step.until in json.dumps(task["logs"]), SECONDS)
                await tesk.dispatcher.cancel(task_id, EVERYBODY)
            task = await tesk.ended(task_id, SECONDS)
            assert task["state"] == step.end, task["logs"]
            if step.meets:
                assert "is there already and is not this task's" in task["logs"][0]["system_logs"][-1]
                await delete_pod(place, f"tesk-{task_id}-{step.meets}")

    steps = [Step(), *STEPS.values()]
    await asyncio.gather(*map(lacking, names), *(live("complete", step) for step in steps))


def foreign_pod(place: KubernetesPlace, name: str) -> Document:
    """A pod that nothing else knows of; no node is to take it."""
    spec = {"containers": [{"name": "foreign", "image": IMAGE}], "nodeSelector": {"no-such": "node"}}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": place.namespace}, "spec": spec
    }  # fmt: skip


async def delete_pod(place: KubernetesPlace, name: str) -> None:
    """By hand and at once. Raises where there is no such pod."""
    command = ("-n", place.namespace, "delete", "pod", name, "--force", "--grace-period=0")
    await asyncio.to_thread(place.cluster.kubectl, *command)


async def taskmaster_log(place: KubernetesPlace, task_id: str) -> str:
    def read() -> str:
        found = strikes.pods(place, task_id, "taskmaster")
        return "".join(place.cluster.log(place.namespace, pod["metadata"]["name"]) for pod in found)

    return await asyncio.to_thread(read)
