"""Two labs with storage of their own: each task uses what is open to its user, and nobody gets at the others'.

The S3 server itself keeps the labs apart: a task that has read something has had the credentials for it.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tesk.errors import NotAllowed
from tesk.identity import SERVER, Identity
from tesk.kubernetes.names import CLUSTER_KEY
from tesk.rules import Grants
from tesk.settings import Settings
from tests.engines.alone import lines
from tests.engines.places import BOTH, LOCAL, KubernetesPlace, Place
from tests.engines.running import Document, Tesk, running, sh, started
from tests.servers.cluster import Object, share
from tests.servers.drs import drs_server
from tests.servers.s3 import S3, s3_server
from tests.servers.silent import silent

pytestmark = pytest.mark.places(*LOCAL, *BOTH)

PEOPLE = {lab: Identity(user=f"of-{lab}", groups=frozenset({lab})) for lab in ("lab-a", "lab-b")}
CLOSED = "which is not open to you: ask the operator for that"


class Labs(NamedTuple):
    """The folder of the buckets, the one that the labs have beside it, and the settings of a tesk with rules."""

    buckets: Path
    folder: Path
    settings: Settings

    @property
    def rules(self) -> Path:
        return Path(self.settings.rules)


def secret_of(lab: str) -> str:
    """The secret key of a lab at the S3 server."""
    return f"secret-of-{lab}"


@pytest.fixture(scope="module")
def store(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, S3]]:
    root = tmp_path_factory.mktemp("buckets")
    with s3_server(root, place.host, {lab: (f"key-of-{lab}", secret_of(lab)) for lab in PEOPLE}) as running:
        for lab in PEOPLE:
            (root / lab / "dir").mkdir()
            (root / lab / "dir" / "f").write_text(f"of {lab}")
            if isinstance(place, KubernetesPlace):
                folder = tmp_path_factory.mktemp(f"data-{lab}")
                (folder / "f").write_text(f"of {lab}")
                share(place.cluster, place.namespace, folder, f"data-{lab}")
        yield root, running


@pytest.fixture
def labs(place: Place, settings: Settings, store: tuple[Path, S3], tmp_path: Path) -> Labs:
    buckets, s3 = store
    folder = Path(settings.file_roots[0]) if isinstance(place, KubernetesPlace) else tmp_path / "shared"
    folder.mkdir(exist_ok=True)
    rules = [f'[storage."file://{folder}/{lab}"]\ngroups = ["{lab}"]\n' for lab in PEOPLE]
    for lab in PEOPLE:
        (folder / lab).mkdir()
        (folder / lab).chmod(0o777)
        (folder / lab / "f").write_text(f"of {lab}")
        table = {"access_key_id": f"key-of-{lab}", "secret_access_key": secret_of(lab), "endpoint": s3.url}
        text = f'["s3://{lab}"]\n' + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
        if isinstance(place, KubernetesPlace):
            place.cluster.apply(secret(place, f"store-{lab}", {f"{lab}.toml": text}))
            key = f'secret = "store-{lab}"'
            rules.append(f'[storage."file:///labs/{lab}"]\ngroups = ["{lab}"]\nclaim = "data-{lab}"\n')
        else:
            (tmp_path / f"{lab}.toml").write_text(text)
            key = f'credentials = "{lab}.toml"'
        rules.append(f'[storage."s3://{lab}"]\ngroups = ["{lab}"]\n{key}\n')
    (tmp_path / "rules.toml").write_text("".join(rules))
    return Labs(buckets, folder, msgspec.structs.replace(settings, rules=str(tmp_path / "rules.toml"), file_roots=()))


def secret(place: KubernetesPlace, name: str, data: dict[str, str]) -> Object:
    metadata = {"name": name, "namespace": place.namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


async def changed(tesk: Tesk, labs: Labs, text: str) -> None:
    """Until the server has read other rules."""
    before = tesk.rules.rules
    labs.rules.write_text(text)
    async with asyncio.timeout(60):
        while tesk.rules.rules is before:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def reading(*urls: str, output: str = "") -> Document:
    inputs = [{"url": url, "path": f"/in/{n}"} for n, url in enumerate(urls)]
    outputs = {"outputs": [{"url": output, "path": "/out/r"}]} if output else {}
    return {"inputs": inputs, "executors": [sh("cd /in; cat $(find . -type f | sort) > /out/r")], **outputs}


async def test_each_lab_uses_its_own_storage(labs: Labs, place: Place) -> None:
    async with started(labs.settings) as tesk:

        async def uses(lab: str) -> None:
            urls = [f"s3://{lab}/dir/f", f"s3://{lab}/dir/", f"{labs.folder}/{lab}/f"]
            urls += [f"/labs/{lab}/f"] if isinstance(place, KubernetesPlace) else []
            for n, output in enumerate((f"s3://{lab}/out", f"file://{labs.folder}/{lab}/out")):
                task = await tesk.ended(await tesk.create_as(PEOPLE[lab], **reading(*urls, output=output)))
                assert task["state"] == "COMPLETE", lines(task)
                made = (labs.buckets / lab / "out", labs.folder / lab / "out")[n]
                assert made.read_text() == f"of {lab}" * len(urls)

        await asyncio.gather(*map(uses, PEOPLE))


async def test_nobody_gets_at_the_others_storage(labs: Labs) -> None:
    """Neither when a task is made, nor by one that the filer gets all the same."""
    theirs = [
        "s3://lab-b/dir/f",
        "s3://lab-b/dir/",
        "s3://lab-a/../lab-b/dir/f",
        f"{labs.folder}/lab-b/f",
        f"file://{labs.folder}/lab-a/../lab-b/f",
        f"file://{labs.folder}/lab-a/%2e%2e/lab-b/f",
    ]
    ann, given = PEOPLE["lab-a"], Grants(("s3://lab-a", f"file://{labs.folder}/lab-a"))
    (labs.folder / "lab-a" / "link").symlink_to(labs.folder / "lab-b")
    async with started(labs.settings) as tesk:

        async def is_kept_from(url: str) -> None:
            for document in (reading(url), reading(output=url.rstrip("/"))):
                with pytest.raises(NotAllowed):
                    await tesk.create_as(ann, **document)
                task = await tesk.ended(await tesk.create_as(given, **document))
                assert task["state"] == "SYSTEM_ERROR"
                assert CLOSED in lines(task) or 'its path holds ".."' in lines(task)

        await asyncio.gather(*map(is_kept_from, theirs))
        task = await tesk.ended(await tesk.create_as(ann, **reading(f"{labs.folder}/lab-a/link/f")))
        assert task["state"] == "SYSTEM_ERROR"
        assert f"input {labs.folder}/lab-a/link/f: " in lines(task)
    assert (labs.folder / "lab-b" / "f").read_text() == (labs.buckets / "lab-b/dir/f").read_text() == "of lab-b"


@pytest.mark.places(*LOCAL)
async def test_what_a_drs_server_names_is_read_by_those_to_whom_it_is_open(labs: Labs, tmp_path: Path) -> None:
    size = (labs.buckets / "lab-a/dir/f").stat().st_size
    (tmp_path / "drs.toml").write_text('["drs://objects.test"]\nendpoint = "DRS"\n')
    with drs_server() as drs:
        (tmp_path / "drs.toml").write_text(f'["drs://objects.test"]\nendpoint = "{drs.url}"\n')
        for lab in PEOPLE:
            method = {"type": "s3", "access_url": {"url": f"s3://{lab}/dir/f"}}
            drs.documents[lab] = {"size": size, "access_methods": [method]}
        settings = msgspec.structs.replace(labs.settings, credentials=(str(tmp_path / "drs.toml"),))
        async with started(settings) as tesk:
            for lab in PEOPLE:
                document = reading(f"drs://objects.test/{lab}", output="s3://lab-a/drs")
                task = await tesk.ended(await tesk.create_as(PEOPLE["lab-a"], **document))
                assert task["state"] == ("COMPLETE" if lab == "lab-a" else "SYSTEM_ERROR"), lines(task)
    assert f'it lies in "s3://lab-b", {CLOSED}' in lines(task)


@pytest.mark.parametrize("settings", [{"max_active_tasks": 1}], indirect=True)
async def test_rules_that_change_while_a_task_waits_count(labs: Labs) -> None:
    """What it was given when it was made it keeps, as long as the rules have the entry."""
    with_both = labs.rules.read_text()
    async with started(labs.settings) as tesk:
        for rules, state in (
            (with_both.replace('groups = ["lab-a"]', 'groups = ["lab-z"]'), "COMPLETE"),
            ('unlisted_storage = "closed"\n', "SYSTEM_ERROR"),
        ):
            first = await tesk.create(executors=[sh("sleep 600")])
            await tesk.until(first, running)
            waiting = await tesk.create_as(PEOPLE["lab-a"], **reading("s3://lab-a/dir/f", output="s3://lab-a/late"))
            await changed(tesk, labs, rules)
            await tesk.dispatcher.cancel(first, SERVER)
            task = await tesk.ended(waiting)
            assert task["state"] == state, lines(task)
            await changed(tesk, labs, with_both)
    assert "this server's rules have no storage in which it lies" in lines(task)


LOOK = """
import json, os
print(json.dumps([f"{at}/{name}" for top in ("/tesk", "/labs") for at, _, names in os.walk(top) for name in names]))
"""


@pytest.mark.places(*BOTH)
async def test_no_pod_of_a_task_has_the_secret_of_another_lab(labs: Labs, place: KubernetesPlace) -> None:
    """While filers of both are at work, held by servers that do not answer."""
    with silent(place.host) as one, silent(place.host) as two:
        async with started(labs.settings) as tesk:
            tasks = {}
            for lab, server in zip(PEOPLE, (one, two), strict=True):
                document = reading(f"s3://{lab}/dir/f", f"/labs/{lab}/f", f"http://{server.address}/f")
                tasks[lab] = await tesk.create_as(PEOPLE[lab], **document)
            await asyncio.gather(one.visited(), two.visited())
            for lab, task_id in tasks.items():
                await has_its_own_secret(place, lab, task_id)
            for task_id in tasks.values():
                await tesk.dispatcher.cancel(task_id, SERVER)
            await asyncio.gather(*map(tesk.ended, tasks.values()))


async def has_its_own_secret(place: KubernetesPlace, lab: str, task_id: str) -> None:
    """By the task's objects, and as a process in its filer's container sees them."""
    other = next(each for each in PEOPLE if each != lab)
    kinds = ("pods", "jobs", "secrets", "configmaps")
    pods, *rest = [
        await asyncio.to_thread(place.cluster.get, place.namespace, kind, f"tesk/task={task_id}") for kind in kinds
    ]
    assert not [name for name in ("store", "data") if f"{name}-{other}" in json.dumps([pods, rest])]
    settings = [
        base64.b64decode(text).decode() for each in rest[1] for key, text in each["data"].items() if key == CLUSTER_KEY
    ]
    assert f"/tesk/storage/store-{lab}" in settings[0]
    assert f"store-{other}" not in settings[0]
    filer = next(pod for pod in pods if f"store-{lab}" in json.dumps(pod["spec"]))
    mounting = [each["name"] for each in filer["spec"]["containers"] if "/tesk/storage" in json.dumps(each)]
    assert mounting == ["runner" if place.name == "pod" else "filer"]
    inside = ("-n", place.namespace, "exec", filer["metadata"]["name"], "-c", mounting[0], "--", "python3", "-c", LOOK)
    seen = await asyncio.to_thread(place.cluster.kubectl, *inside)
    assert f"/tesk/storage/store-{lab}/{lab}.toml" in json.loads(seen)
    assert f"/labs/{lab}/f" in json.loads(seen)
    assert other not in seen


@pytest.mark.places(*BOTH)
@pytest.mark.parametrize("settings", [{"start_timeout_s": 3.0}], indirect=True)
async def test_a_secret_that_is_missing_is_named(labs: Labs) -> None:
    labs.rules.write_text('[storage."s3://lab-a"]\nsecret = "nope"\n')
    async with started(labs.settings) as tesk:
        task = await tesk.ended(await tesk.create_as(PEOPLE["lab-a"], **reading("s3://lab-a/dir/f")))
    assert task["state"] == "SYSTEM_ERROR"
    assert 'secret "nope" not found (given up after 3 s, start_timeout_s)' in lines(task)
