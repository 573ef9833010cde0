"""Parts of the cluster that are away for a while, and what comes between it and the server: every task ends right."""

import asyncio
import json
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tesk.identity import SERVER
from tesk.kubernetes.objects import ConfigMap
from tesk.places.kubernetes import rights
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.config import load
from tesk.places.kubernetes.watch import Cache
from tesk.settings import Settings
from tests.engines import strikes
from tests.engines.alone import lines
from tests.engines.gates import IN_BOTH_MODES, Gates, assert_ran_once, gated, in_every_step, reached, steps
from tests.engines.places import DISRUPTED, KubernetesPlace
from tests.engines.running import Document, Tesk, running, sh
from tests.engines.serving import Server, serving
from tests.servers.cluster import Cluster, account, may, until
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.places(*DISRUPTED)

SHORT_S = 6.0
LONG_S = 20.0
"""Four times the longest pause between two tries of a server or a taskmaster."""
LIMIT_S = 60.0
"""Within this time after the first executor's start the other one runs too, and the kubelet is down."""
ETCD = "http://127.0.0.1:2379/v3/kv"
AUTO = pytest.mark.parametrize("settings", [{"mode": "auto"}], indirect=True)


def in_both(*names: str) -> list[str]:
    """These tasks or gates of theirs, in both modes."""
    return [prefix + name for prefix in IN_BOTH_MODES for name in names]


def assert_failed_once(doors: Gates, task: Document) -> None:
    name = task["name"]
    assert task["state"] == "EXECUTOR_ERROR", task["logs"]
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [0, 3]
    assert [doors.reached[f"{name}/executor-{n}"] for n in (0, 1)] == [1, 1], "an executor ran twice"


def recover(cluster: Cluster) -> None:
    """Brings the API server back; the others are started anew, since they would wait for a minute before they ask it.

    They are stopped before, while there is nothing for them to do: a pod that a kubelet has made half is lost with it.
    """
    others = ("kube-scheduler", "kube-controller-manager", "provisioner", "kubelet")
    for component in others:
        cluster.stop(component)
    cluster.start("kube-apiserver")
    until(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False) == "ok", what="the API server's return")
    for component in others:
        cluster.start(component)


async def with_failing_and_cancelled(server: Server, doors: Gates) -> dict[str, str]:
    """Tasks in every step, one that is going to fail and one that is going to be cancelled, in both modes, by name."""
    ids = await in_every_step(server, doors, *IN_BOTH_MODES)
    for name in in_both("failing", "cancelled"):
        ids[name] = await server.create(gated(doors, name, 0, 3))
        doors.open(f"{name}/inputs", f"{name}/executor-0")
    await reached(doors, *in_both("failing/executor-1", "cancelled/executor-1"))
    return ids


async def add_fresh(server: Server, doors: Gates, ids: dict[str, str], name: str) -> None:
    for each in in_both(name):
        ids[each] = await server.create(gated(doors, each, 0, 0))


async def assert_all_end_right(server: Server, doors: Gates, ids: dict[str, str]) -> None:
    for name, task_id in ids.items():
        task = await server.ended(task_id)
        if name.endswith("cancelled"):
            assert (task["state"], task["logs"][0]["system_logs"][-1]) == ("CANCELED", "canceled by the user")
        elif name.endswith("failing"):
            assert_failed_once(doors, task)
        else:
            assert_ran_once(doors, task)


@AUTO
async def test_tasks_end_right_after_a_while_without_the_api_server(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    ids = await with_failing_and_cancelled(server, doors)
    await asyncio.to_thread(strikes.cut_down, place.cluster, "kube-apiserver")
    try:
        for name in in_both("cancelled"):
            await server.cancel(ids[name])
        await add_fresh(server, doors, ids, "fresh-0")
        await add_fresh(server, doors, ids, "fresh-1")
        doors.open(
            *in_both("in-inputs/inputs", "in-executor-0/executor-0", "in-executor-1/executor-1", "failing/executor-1")
        )
        await server.troubled("cannot be reached")
        for name in in_both("fresh-0"):
            await server.until(ids[name], lambda task: "cannot be reached" in str(task.get("logs")))
        await asyncio.sleep(LONG_S)
    finally:
        await asyncio.to_thread(recover, place.cluster)
    await server.ready()
    doors.open_all()
    await assert_all_end_right(server, doors, ids)


@AUTO
async def test_tasks_end_right_when_parts_of_the_cluster_crash_one_after_the_other(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    ids = await with_failing_and_cancelled(server, doors)
    await strike(place, "etcd")
    await add_fresh(server, doors, ids, "fresh-0")
    doors.open(*in_both("in-inputs/inputs", "in-executor-0/executor-0"))
    await strike(place, "kube-controller-manager")
    await add_fresh(server, doors, ids, "fresh-1")
    doors.open(*in_both("in-executor-1/executor-1", "in-outputs/outputs"))
    at_work = in_both("in-inputs/executor-0", "in-executor-0/executor-1", "in-executor-1/outputs")
    await reached(doors, *at_work, *in_both("fresh-0/inputs", "fresh-1/inputs"))
    for name in ("pod-fresh-0", "pod-fresh-1"):  # one of which a kubelet that dies has made half is a lost attempt
        await asyncio.to_thread(until, partial(runs, place, f"tesk-{ids[name]}"), what=f"all containers of {name}")
    await asyncio.to_thread(strikes.cut_down, place.cluster, "kubelet")
    for name in in_both("cancelled"):
        await server.cancel(ids[name])
    await add_fresh(server, doors, ids, "fresh-2")
    doors.open(*in_both("failing/executor-1"))
    for name in in_both("in-executor-0"):
        await server.until(ids[name], running)
    await server.ready()  # a node that cannot give a log is not the API
    await asyncio.sleep(SHORT_S)
    await asyncio.to_thread(place.cluster.start, "kubelet")
    doors.open_all()
    await assert_all_end_right(server, doors, ids)


@pytest.mark.parametrize(
    "settings",
    [{"executor_timeout_s": LIMIT_S, "mode": "auto", "allowed_backend_parameters": ("service_account",)}],
    indirect=True,
)
async def test_an_overdue_executor_on_a_node_that_is_gone_comes_to_its_end(tesk: Tesk, place: KubernetesPlace) -> None:
    """In one pod its runner ends it, and tells the server."""
    place.cluster.need_node()
    task_id, own = [
        await tesk.create(executors=[sh("echo begun; sleep 3600")], resources={"backend_parameters": parameters})
        for parameters in ({"service_account": "default"}, {})
    ]
    for each in (task_id, own):
        await tesk.until(each, running)
    await asyncio.to_thread(strikes.cut_down, place.cluster, "kubelet")
    try:
        in_pod = await tesk.ended(own)
        task = await tesk.ended(task_id)
    finally:
        await asyncio.to_thread(place.cluster.start, "kubelet")
    assert (in_pod["state"], [log["stdout"] for log in in_pod["logs"][0]["logs"]]) == ("EXECUTOR_ERROR", ["begun\n"])
    assert f"ended after its time limit of {LIMIT_S:g} s" in lines(in_pod)
    assert task["state"] == "EXECUTOR_ERROR"
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [137]
    assert f"ended after its time limit of {LIMIT_S:g} s" in lines(task)
    assert f"the log of pod tesk-{task_id}-executor-0 cannot be had; node" in lines(task)


async def test_a_taskmaster_that_is_removed_by_force_blames_nobody_for_its_lost_pods(
    tesk: Tesk, place: KubernetesPlace
) -> None:
    """So are a cancelled task's pods where their node does not end them, and the taskmaster goes on running there."""
    place.cluster.need_node()
    task_id = await tesk.create(executors=[sh("sleep 3600")])
    await tesk.until(task_id, running)
    await asyncio.to_thread(strikes.cut_down, place.cluster, "kubelet")
    try:
        own = await asyncio.to_thread(strikes.taskmaster, place, task_id)
        pods = (own["metadata"]["name"], f"tesk-{task_id}-executor-0")
        suspend = ("patch", "job", f"tesk-{task_id}", "-p", '{"spec": {"suspend": true}}')
        await asyncio.to_thread(place.cluster.kubectl, "-n", place.namespace, *suspend)
        for pod in pods:
            await asyncio.to_thread(strikes.delete, place, "pod", pod, at_once=True)
        await asyncio.sleep(SHORT_S)
        assert (await tesk.task(task_id))["state"] == "RUNNING"
        await tesk.dispatcher.cancel(task_id, SERVER)
        task = await tesk.ended(task_id)
    finally:
        await asyncio.to_thread(place.cluster.start, "kubelet")
    assert (task["state"], task["logs"][0]["system_logs"]) == ("CANCELED", ["canceled by the user"])


async def test_outputs_are_not_lost_while_the_log_of_their_filer_cannot_be_had(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    """The taskmaster is killed before all is pushed, so that it has not been told of all."""
    place.cluster.need_node()
    task_id = await server.create(gated(doors, "unheard", 0, 0))
    doors.open(*steps("unheard", before="outputs"))
    await reached(doors, "unheard/outputs")
    before = await asyncio.to_thread(strikes.taskmaster, place, task_id)
    await asyncio.to_thread(strikes.kill, place, before["metadata"]["name"], "taskmaster")
    await asyncio.to_thread(strikes.await_another_life, place, task_id, before)
    with strikes.without_logs(place.cluster):
        doors.open_all()
        words = "waiting: outputs: the log of pod "
        await server.until(task_id, lambda task: words in lines(task) or task["state"].endswith("ERROR"))
    assert_ran_once(doors, await server.ended(task_id))


@AUTO
async def test_the_end_of_a_pod_is_not_lost_while_its_log_cannot_be_had(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    """It was told to nobody, since no server ran."""
    place.cluster.need_node()
    task_id = await server.create(gated(doors, "pod-unheard", 0, 0))
    doors.open(*steps("pod-unheard", before="executor-1"))
    await reached(doors, "pod-unheard/executor-1")
    await server.until(task_id, running)
    await server.kill()
    doors.open_all()
    await asyncio.to_thread(until, lambda: has_succeeded(place, f"tesk-{task_id}"), what="the pod's end")
    with strikes.without_logs(place.cluster):
        await server.start()
        await asyncio.sleep(SHORT_S)
        assert (await server.task(task_id))["state"] == "RUNNING"
    assert_ran_once(doors, await server.ended(task_id))


def runs(place: KubernetesPlace, pod: str) -> bool:
    """True while all containers of a pod run."""
    statuses = [
        each["status"].get("containerStatuses") or () for each in place.cluster.get(place.namespace, "pods", name=pod)
    ]
    return [["running" in each["state"] for each in of] for of in statuses] == [[True] * 3]


def has_succeeded(place: KubernetesPlace, pod: str) -> bool:
    return [each["status"]["phase"] for each in place.cluster.get(place.namespace, "pods", name=pod)] == ["Succeeded"]


async def strike(place: KubernetesPlace, component: str) -> None:
    """A component crashes and is back after a while."""
    await asyncio.to_thread(strikes.cut_down, place.cluster, component)
    await asyncio.sleep(SHORT_S)
    await asyncio.to_thread(place.cluster.start, component)


@AUTO
async def test_connections_that_die_without_a_word_are_noticed(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    ids = await in_every_step(server, doors, *IN_BOTH_MODES)
    with strikes.silenced(place.cluster):
        doors.open_all()
        await add_fresh(server, doors, ids, "fresh")
        await assert_all_end_right(server, doors, ids)
    await server.logged("was cut")


async def test_a_watch_behind_a_proxy_that_went_silent_is_taken_up_again(place: KubernetesPlace) -> None:
    found = load(str(place.cluster.kubeconfig), {})
    async with Proxy(found.server.removeprefix("https://")) as proxy:
        client = Client(msgspec.structs.replace(found, server=proxy.url), place.namespace, 100)
        await client.open()
        seen: dict[str, Any] = {}
        cache: Cache[Any] = Cache(
            client, "configmaps", msgspec.json.Decoder(ConfigMap).decode, "", seen.__setitem__, silence_s=2.0
        )
        following = asyncio.create_task(cache.follow())
        try:
            await cache.synced.wait()
            proxy.go_silent()
            await asyncio.to_thread(place.cluster.kubectl, "-n", place.namespace, "create", "configmap", "late")
            async with asyncio.timeout(600):
                while "late" not in seen:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        finally:
            following.cancel()
            await client.close()


@AUTO
async def test_what_happens_while_the_server_sleeps_is_seen_although_its_history_has_expired(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    place.cluster.need_node()
    ids = await in_every_step(server, doors, *IN_BOTH_MODES)
    taken = {name: await server.create(gated(doors, name, 0, 0)) for name in in_both("taken")}
    pods = [f"tesk-{taken['taken']}-executor-0", f"tesk-{taken['pod-taken']}"]
    doors.open(*in_both("taken/inputs", "in-inputs/inputs", "in-executor-1/executor-1"))
    await reached(doors, *in_both("taken/executor-0"))
    server.signal(signal.SIGSTOP)
    for pod in pods:
        await asyncio.to_thread(strikes.delete, place, "pod", pod)
    doors.open(*in_both("in-executor-0/executor-0", "in-outputs/outputs"))
    await reached(doors, *in_both("in-executor-0/executor-1", "in-executor-1/outputs", "in-inputs/executor-0"))
    await asyncio.to_thread(strikes.cut_down, place.cluster, "kube-apiserver")
    await asyncio.to_thread(recover, place.cluster)
    await asyncio.to_thread(compact, place.cluster)
    server.signal(signal.SIGCONT)
    doors.open_all()
    await assert_all_end_right(server, doors, ids)
    for task_id, pod in zip(taken.values(), pods, strict=True):
        task = await server.ended(task_id)
        assert task["state"] == "SYSTEM_ERROR"
        said = task["logs"][0]["system_logs"][-1]  # it may be gone by now, or just being deleted
        assert f"pod {pod} was deleted by somebody else" in said or f"pod {pod} is gone: somebody deleted it" in said
    await server.logged("too old resource version")


async def test_a_token_that_is_not_taken_any_more_is_named_and_a_new_one_is_used(
    settings: Settings, place: KubernetesPlace, doors: Gates, tmp_path: Path
) -> None:
    give(place, rights.NEEDED)
    kubeconfig = account_file(place, tmp_path)
    hold_token(place, tmp_path, "first")
    async with serving(msgspec.structs.replace(settings, kubeconfig=str(kubeconfig))) as server:
        ids = {"running": await server.create(gated(doors, "running", 0, 0))}
        doors.open("running/inputs", "running/executor-1")
        await reached(doors, "running/executor-0")
        strikes.delete(place, "secret", "first")
        await asyncio.to_thread(until, lambda: not is_known(place, kubeconfig), what="the token's end")
        ids["late"] = await server.create(gated(doors, "late", 0, 0))
        await server.troubled("does not take our token (401)")
        doors.open_all()
        await server.logged("does not take our token (401)")
        hold_token(place, tmp_path, "second")
        await server.ready()
        await assert_all_end_right(server, doors, ids)
        assert await place.leftovers(settings) == []
    strikes.delete(place, "secret", "second")


async def test_a_right_that_is_taken_away_is_named_and_used_again_when_it_is_back(
    settings: Settings, place: KubernetesPlace, doors: Gates, tmp_path: Path
) -> None:
    give(place, rights.NEEDED)
    kubeconfig = account_file(place, tmp_path)
    hold_token(place, tmp_path, "third")
    async with serving(msgspec.structs.replace(settings, kubeconfig=str(kubeconfig))) as server:
        ids = {"running": await server.create(gated(doors, "running", 0, 0))}
        doors.open("running/inputs")
        await reached(doors, "running/executor-0")
        lost = {"jobs": "create", "pods": "watch", "secrets": "delete"}
        give(place, without(rights.NEEDED, lost))
        await lack(place, lost)
        ids["late"] = await server.create(gated(doors, "late", 0, 0))
        await server.troubled("create jobs")
        for kind, verb in lost.items():
            await server.troubled(f"{verb} {kind}")
            await server.logged(f"{verb} {kind}")
        await server.until(ids["late"], lambda task: "cannot create resource" in str(task.get("logs")))
        doors.open_all()
        assert_ran_once(doors, await server.ended(ids["running"]))
        await server.kill()
        await server.start()
        await server.troubled("watch pods")
        await server.logged("pods cannot be watched")
        give(place, rights.NEEDED)
        await server.ready()
        await assert_all_end_right(server, doors, ids)
        assert await place.leftovers(settings) == []
    strikes.delete(place, "secret", "third")


async def test_a_right_that_taskmasters_lack_is_what_their_tasks_wait_for(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    lost = {"pods": "create"}
    give(place, without(rights.TASKMASTER, lost), "tesk-taskmaster")
    try:
        await lack(place, lost, "tesk-taskmaster")
        task_id = await server.create(gated(doors, "poor", 0, 0))
        await server.until(task_id, lambda task: 'cannot create resource "pods"' in str(task.get("logs")))
    finally:
        give(place, rights.TASKMASTER, "tesk-taskmaster")
    doors.open_all()
    assert_ran_once(doors, await server.ended(task_id))


def give(place: KubernetesPlace, needed: Mapping[str, tuple[str, ...]], name: str = "tesk-server") -> None:
    """Gives an account these rights, and no others."""
    place.cluster.apply(*account(place.namespace, name, needed))


async def lack(place: KubernetesPlace, lost: Mapping[str, str], name: str = "tesk-server") -> None:
    """Returns once the API server knows that an account has lost these rights: what it does before that is granted."""
    for kind, verb in lost.items():
        has_lost = lambda: not may(place.cluster, place.namespace, name, verb, kind)  # noqa: B023, E731
        await asyncio.to_thread(until, has_lost, what=f"the loss of {verb} {kind}")


def without(needed: Mapping[str, tuple[str, ...]], lost: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Rights, by kind, but for a verb of some kinds."""
    return {kind: tuple(verb for verb in verbs if verb != lost.get(kind)) for kind, verbs in needed.items()}


def account_file(place: KubernetesPlace, folder: Path) -> Path:
    """A kubeconfig of that account, whose token is in a file beside it."""
    found = yaml.safe_load(place.cluster.kubeconfig.read_text())
    for user in found["users"]:
        user["user"] = {"tokenFile": "token"}
    made = folder / "kubeconfig"
    made.write_text(yaml.safe_dump(found))
    return made


def hold_token(place: KubernetesPlace, folder: Path, name: str) -> None:
    """Writes a token that is good for as long as the Secret of that name exists."""
    place.cluster.kubectl("-n", place.namespace, "create", "secret", "generic", name)
    bound = ("--bound-object-kind=Secret", f"--bound-object-name={name}")
    token = place.cluster.kubectl("-n", place.namespace, "create", "token", "tesk-server", *bound)
    (folder / "token").write_text(token)


def is_known(place: KubernetesPlace, kubeconfig: Path) -> bool:
    """True while the API server takes this file's token; it remembers for some seconds that it did."""
    path = f"/api/v1/namespaces/{place.namespace}/pods"
    return bool(place.cluster.kubectl("get", f"--raw={path}", f"--kubeconfig={kubeconfig}", check=False))


def compact(cluster: Cluster) -> None:
    """Makes etcd forget all that was before now."""
    asked = json.dumps({"key": "AA==", "range_end": "AA==", "limit": 1})
    found = cluster.on_node("curl", "-s", f"{ETCD}/range", "-d", asked)
    revision = json.loads(found)["header"]["revision"]
    cluster.on_node("curl", "-sf", f"{ETCD}/compaction", "-d", json.dumps({"revision": revision, "physical": True}))
