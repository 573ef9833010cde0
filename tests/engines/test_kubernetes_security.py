"""What a hostile program in an executor finds, reaches and can do; where storage credentials go, and where not."""

import asyncio
import base64
import json
import logging
import secrets
from pathlib import Path

import msgspec
import pytest

from tesk.settings import Settings
from tests.engines.places import BOTH, KUBERNETES, KubernetesPlace
from tests.engines.running import Document, Tesk, cancelled, content, running, sh, started
from tests.known_secrets import known
from tests.servers.cluster import PRODUCT, Object
from tests.servers.silent import Silent

pytestmark = pytest.mark.places(*KUBERNETES)


class Vault:
    """Storage credentials in Secrets: `in_environment` and `in_file` are the words to keep."""

    def __init__(self, place: KubernetesPlace, endpoint: str) -> None:
        self._place = place
        self.in_environment = known("a key in the environment of filers", secrets.token_hex(16))
        self.in_file = known("a key in a file of filers", secrets.token_hex(16))
        environment = {
            "AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": self.in_environment, "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip
        place.cluster.apply(self._secret("keys", environment), self._secret("files", {"password": self.in_file}))

    def _secret(self, name: str, data: dict[str, str]) -> Object:
        metadata = {"name": name, "namespace": self._place.namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}

    def settings(self, settings: Settings) -> Settings:
        mounts = (*settings.filer_mounts, "/keys=secret:files")
        return msgspec.structs.replace(settings, filer_environment_secret="keys", filer_mounts=mounts)

    def assert_keeps(self, *texts: str) -> None:
        for word in (self.in_environment, self.in_file):
            for form in (word, base64.b64encode(word.encode()).decode()):
                assert not [text for text in texts if form in text]


async def kubectl(place: KubernetesPlace, *arguments: str) -> str:
    return await asyncio.to_thread(place.cluster.kubectl, "-n", place.namespace, *arguments)


async def pods(place: KubernetesPlace, task_id: str) -> dict[str, Object]:
    """A task's pods by the containers that are in them."""
    found = await asyncio.to_thread(place.cluster.get, place.namespace, "pods", f"tesk/task={task_id}")
    return {pod["metadata"]["labels"]["tesk/role"]: pod for pod in found}


def log_of(task: Document) -> Document:
    return dict(task["logs"][0])


LOOK_AROUND = """
f=/bin/busybox
env; cat /proc/[0-9]*/environ /proc/mounts
$f find / \\( -path /proc -o -path /sys \\) -prune -o \\( -name '*token*' -o -path '*serviceaccount*' \\) -print
$f find / \\( -path /proc -o -path /sys -o -path '/.tesk/[cs]*' \\) -prune -o -type f -size -200k -exec cat {} \\;
for path in /.tesk/shim /.tesk/shim/shim /etc/hosts.allow; do echo x >> $path 2>/dev/null && echo wrote $path; done
echo looked
"""


@pytest.mark.places(*BOTH)
async def test_an_executor_finds_no_token_and_no_credential(
    settings: Settings, place: KubernetesPlace, silent_server: Silent
) -> None:
    vault = Vault(place, f"http://{silent_server.address}")
    async with started(vault.settings(settings)) as tesk:
        task_id = await tesk.create(
            executors=[sh(LOOK_AROUND), sh("sleep 3600")], inputs=[content("/in/a", "mine")], volumes=["/v"]
        )
        await tesk.until(task_id, lambda task: running(task) and len(log_of(task)["logs"]) == 1)
        task = await tesk.task(task_id)
        secret = json.loads(await kubectl(place, "get", "secret", f"tesk-{task_id}", "-o", "json"))["data"]
        told_by = base64.b64decode(secret["token"]).decode()
        await cancelled(tesk, place, task_id)
        assert await place.leftovers(settings) == []
    seen = log_of(task)["logs"][0]["stdout"]
    assert seen.endswith("looked\n")
    assert "mine" in seen
    vault.assert_keeps(seen, log_of(task)["logs"][0]["stderr"])
    assert told_by not in seen
    assert "TESK" not in seen
    assert "serviceaccount" not in seen
    assert "wrote /.tesk" not in seen


PROBE = """
import json, os, socket, ssl, sys, urllib.error, urllib.request
taskmaster, namespace = sys.argv[1:]
api = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
def ask(url, data=None, **headers):
    try:
        request = urllib.request.Request(url, data, headers)
        return urllib.request.urlopen(request, timeout=240, context=ssl._create_unverified_context()).status
    except urllib.error.HTTPError as error:
        return error.code
kinds = ["secrets", "pods", "configmaps"]
ended = json.dumps({"told": "ended", "exit_code": 0, "started": "", "ended": ""}).encode()
told = f"http://{taskmaster}:8480/{socket.gethostname()}"
print(json.dumps({
    "api": [ask(f"{api}/api/v1/namespaces/{namespace}/{kind}") for kind in kinds],
    "told": [ask(told, ended), ask(told, ended, Authorization="Bearer "), ask(told, b"", Authorization="Bearer x")],
    "user": os.getuid(),
    "writable": [path for path in ("/.tesk/shim", "/.tesk/shim/shim", "/tesk", "/etc") if os.access(path, os.W_OK)],
}))
"""


async def test_an_executor_can_do_nothing_with_the_api_or_its_taskmaster(tesk: Tesk, place: KubernetesPlace) -> None:
    """Not by a network policy, which the test cluster does not enforce, but since it holds no credential."""
    python = {"image": PRODUCT, "command": ["python3", "-c", "import time; print('up', flush=True); time.sleep(3600)"]}
    task_id = await tesk.create(executors=[python])
    await tesk.has_written(task_id, "up\n")
    address = (await pods(place, task_id))["taskmaster"]["status"]["podIP"]
    inside = ("exec", f"tesk-{task_id}-executor-0", "-c", "executor", "--", "python3", "-c", PROBE)
    found = json.loads(await kubectl(place, *inside, address, place.namespace))
    assert set(found["api"]) <= {401, 403}
    assert (found["told"], found["user"], found["writable"]) == ([401, 401, 401], 65532, [])
    assert (await tesk.task(task_id))["state"] == "RUNNING"
    await cancelled(tesk, place, task_id)


CONTROL = "/.tesk/control"
HOSTILE: dict[str, tuple[str, str, int, str]] = {
    "a folder for its end": (f"echo words; mkdir {CONTROL}/ended; exit 3", "EXECUTOR_ERROR", 3, "words\n"),
    "a link for its end": (f"ln -s /tesk/token/token {CONTROL}/ended; echo words", "COMPLETE", 0, "words\n"),
    "a forged end": (f"echo words; echo 0 > {CONTROL}/ended; sleep 3600; exit 9", "COMPLETE", 0, "words\n"),
    "a pipe for its end": (f"mkfifo {CONTROL}/ended; echo words", "COMPLETE", 0, "words\n"),
    "marks that are not true": (f"touch {CONTROL}/terminated; echo words; exit 4", "EXECUTOR_ERROR", 4, "words\n"),
    "links for its streams": (
        f"cd {CONTROL}; rm std*; ln -s /proc/self/environ stdout; ln -s /tesk/token/token stderr", "COMPLETE", 0, "",
    ),
    "no folder that others could read": (f"chmod 0 {CONTROL}; echo words; exit 5", "EXECUTOR_ERROR", 5, ""),
    "nothing left of it": (f"rm -rf {CONTROL}/*; exit 6", "EXECUTOR_ERROR", 6, ""),
}  # fmt: skip


async def test_a_program_that_tampers_with_its_control_folder_hurts_nobody_but_itself(tesk: Tesk) -> None:
    """It can lie about its own end, as any program can by its exit code; it cannot read, stop or outlive anything."""
    tasks = await asyncio.gather(*(tesk.run(executors=[sh(script)]) for script, *_ in HOSTILE.values()))
    for task, (name, (_, *wanted)) in zip(tasks, HOSTILE.items(), strict=True):
        entry = log_of(task)["logs"][0]
        assert [task["state"], entry["exit_code"], entry["stdout"]] == wanted, name


@pytest.mark.places(*BOTH)
async def test_a_program_that_lays_traps_for_the_filer_gets_nothing_of_it(
    settings: Settings, place: KubernetesPlace, silent_server: Silent, shared: Path
) -> None:
    vault = Vault(place, f"http://{silent_server.address}")
    traps = {"a": "/keys/password", "b": "../../keys/password", "c": "/tesk/task/0/document", "d": "/proc/self/environ"}
    script = "; ".join(f"ln -s {target} /out/{name}" for name, target in traps.items())
    script += "; mkdir /out/e; ln -s /keys /out/e/f; ln -s /tesk /out/g; mkfifo /out/h; echo fine > /out/i"
    async with started(vault.settings(settings)) as tesk:
        task = await tesk.run(
            executors=[sh(script), sh("echo x", stdout="/out/c"), sh("cat /keys/password /tesk/task/0/*")],
            outputs=[{"path": f"/out/{name}", "url": f"{shared}/{name}"} for name in "abcdghi"]
            + [{"path": "/out/e", "url": f"{shared}/e", "type": "DIRECTORY"}],
        )
        assert await place.leftovers(settings) == []
    assert task["state"] in ("EXECUTOR_ERROR", "SYSTEM_ERROR")
    assert (shared / "i").read_text() == "fine\n"
    pushed = [path.read_text() for path in shared.rglob("*") if path.is_file()]
    assert pushed == ["fine\n"]
    vault.assert_keeps(json.dumps(task), *pushed)


async def test_credentials_reach_filers_alone_and_no_spec_or_log(
    settings: Settings, place: KubernetesPlace, silent_server: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    vault = Vault(place, f"http://{silent_server.address}")
    caplog.set_level(logging.DEBUG)
    password = secrets.token_hex(8)
    async with started(vault.settings(settings)) as tesk:
        refused = f"http://lab:{password}@{place.host}:1/a?signature={password}"
        failed = await tesk.run(executors=[sh("true")], inputs=[{"path": "/in/a", "url": refused}])
        task_id = await tesk.create(
            executors=[sh("cat /in/a > /out/a", env={"PLAIN": "to be seen"})], inputs=[content("/in/a", "unseen")],
            outputs=[{"path": "/out/a", "url": "s3://lab/a"}],
        )  # fmt: skip
        await silent_server.visited()
        found = await pods(place, task_id)
        specs = await kubectl(place, "get", "pods,jobs,configmaps,events", "-o", "json")
        logs = [await kubectl(place, "logs", pod["metadata"]["name"], "--all-containers") for pod in found.values()]
        documents = json.loads(await kubectl(place, "get", "secrets", "-l", f"tesk/task={task_id}", "-o", "json"))
        held = json.loads(await kubectl(place, "exec", f"tesk-{task_id}-outputs", "--", "python3", "-c", HELD))
        await cancelled(tesk, place, task_id)
        assert await place.leftovers(settings) == []
    assert failed["state"] == "SYSTEM_ERROR"
    words = [specs, caplog.text, json.dumps(failed["logs"]), *logs]
    vault.assert_keeps(*words, json.dumps(documents))
    assert not [text for text in words if password in text or "unseen" in text]
    assert "PLAIN" in specs
    assert "to be seen" not in caplog.text
    assert held == [vault.in_environment, vault.in_file]
    for role, pod in found.items():
        sources = json.dumps([pod["spec"]["volumes"], [each.get("envFrom") for each in pod["spec"]["containers"]]])
        is_filer = role in ("inputs", "outputs")
        assert ('"keys"' in sources, '"files"' in sources) == (is_filer, is_filer)
        assert (role == "taskmaster") == ("kube-api-access" in sources)


HELD = "import json, os; print(json.dumps([os.environ['AWS_SECRET_ACCESS_KEY'], open('/keys/password').read()]))"
