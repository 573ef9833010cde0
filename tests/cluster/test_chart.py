"""The chart on a real cluster: installed by Helm, used through its Service, upgraded, and taken away again."""

import contextlib
import json
import re
import time
import urllib.error
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tesk.server.people.passwords import hashed
from tests.servers.cluster import BUSYBOX, Cluster, Object, may, share, until
from tests.servers.helm import MAJORS, rendered
from tests.servers.nginx import nginx
from tests.servers.postgres import postgres
from tests.servers.release import IMAGE, Client, Release, left, place, released, secret, sh, write
from tests.servers.s3 import s3_server

RESTRICTED = {"tasks.podSecurity": "restricted", "tasks.runAsUser": 1000}


@pytest.fixture
def lab(cluster: Cluster) -> Iterator[str]:
    """An empty namespace."""
    with place(cluster) as name:
        yield name


@contextlib.contextmanager
def files(cluster: Cluster, folder: Path) -> Iterator[str]:
    """The URL of a folder that pods may read and write."""
    folder.mkdir()
    folder.chmod(0o777)
    for above in folder.parents:
        if above.is_relative_to("/tmp"):
            above.chmod(above.stat().st_mode | 0o111)
    with nginx(folder, also=cluster.host) as url:
        yield url


def copies(url: str) -> Object:
    """A task with inputs and outputs: it joins two files into a third."""
    return {
        "inputs": [{"path": "/in/a", "content": "one "}, {"path": "/in/b", "url": f"{url}/b"}],
        "outputs": [{"path": "/out/c", "url": f"{url}/c"}],
        "executors": [sh("cat /in/a /in/b >/out/c")],
    }


def runs(client: Client, url: str, folder: Path) -> None:
    write(folder / "b", "two")
    document = copies(url)
    task = client.run(*document.pop("executors"), **document)
    assert (folder / "c").read_text() == "one two"
    assert [(each["path"], each["size_bytes"]) for each in task["logs"][0]["outputs"]] == [("/out/c", "7")]


@pytest.mark.parametrize("major", MAJORS)
def test_with_nothing_set_but_who_may_call_it_runs_tasks_with_inputs_and_outputs(
    cluster: Cluster, lab: str, tmp_path: Path, major: int
) -> None:
    with files(cluster, tmp_path / "files") as url, released(cluster, lab, major=major) as release:
        with release.forwarded() as client:
            runs(client, url, tmp_path / "files")
        assert "Succeeded" in release.test()


def test_in_mode_pod_tasks_are_pods_that_report_to_the_release(cluster: Cluster, lab: str, tmp_path: Path) -> None:
    with (
        files(cluster, tmp_path / "files") as url,
        released(cluster, lab, {"tasks.mode": "pod"}) as release,
        release.forwarded() as client,
    ):
        runs(client, url, tmp_path / "files")
        task = client.reached(client.create(sh("sleep 1000")), "RUNNING")
        assert task["logs"][0]["system_logs"] == ["runs as one pod"]
        until(lambda: is_told(cluster, lab, f"tesk-{task['id']}"), what="a report that the server takes")


def is_told(cluster: Cluster, namespace: str, pod: str) -> bool:
    """True when a runner's reports are taken: where they are not, it says so again, every 20 s at the longest.

    The first ones may come before the server knows the pod."""

    def refusals() -> int:
        return cluster.kubectl("-n", namespace, "logs", pod, "-c", "runner").count("was not told")

    if before := refusals():
        time.sleep(30)
    return refusals() == before


def users(**passwords: str) -> str:
    return "".join(f'[{name}]\npassword = "{hashed(password)}"\n' for name, password in passwords.items())


def is_refused(client: Client, task_id: str) -> bool:
    try:
        client.task(task_id)
    except urllib.error.HTTPError as error:
        return error.code == 401
    return False


def test_the_operator_makes_the_first_token_in_the_container_of_the_server(cluster: Cluster, lab: str) -> None:
    with released(cluster, lab, {"people.anyone": False, "people.tokens": "alone"}) as release:
        server = release.find("pods")["metadata"]["name"]

        def tesk(*arguments: str) -> str:
            return cluster.kubectl("-n", lab, "exec", server, "--", "tesk", "token", *arguments).strip()

        made = json.loads(tesk("create", "--user=alice", "--name=first", "--json"))
        with release.forwarded() as anonymous:
            with pytest.raises(urllib.error.HTTPError, match="401"):
                anonymous.create(sh("true"))
            alice = anonymous._replace(authorization=f"Bearer {made['token']}")
            task_id = alice.run(sh("true"))["id"]
            tesk("revoke", "--user=alice", made["id"])
            until(lambda: is_refused(alice, task_id), what="the refusal of a token that was revoked")


def test_users_are_those_of_a_secret_and_a_change_of_it_is_seen(cluster: Cluster, lab: str) -> None:
    cluster.apply(secret("users", lab, **{"users.toml": users(alice="correct horse")}))
    values = {"people.anyone": False, "people.usersSecret": "users", "people.admins": ["alice"]}
    with released(cluster, lab, values) as release, release.forwarded() as anonymous:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            anonymous.create(sh("true"))
        alice = anonymous._replace(authorization=f"Basic {b64encode(b'alice:correct horse').decode()}")
        task_id = alice.run(sh("true"))["id"]
        cluster.apply(secret("users", lab, **{"users.toml": users(alice="battery staple")}))
        until(lambda: is_refused(alice, task_id), what="the refusal of the password of before")
        changed = anonymous._replace(authorization=f"Basic {b64encode(b'alice:battery staple').decode()}")
        assert changed.task(task_id)["state"] == "COMPLETE"
    cluster.kubectl("-n", lab, "delete", "secret", "users")


def test_where_pod_security_restricted_is_enforced_one_setting_is_enough(cluster: Cluster, tmp_path: Path) -> None:
    with (
        files(cluster, tmp_path / "files") as url,
        place(cluster, "restricted") as namespace,
        released(cluster, namespace, RESTRICTED) as release,
    ):
        with release.forwarded() as client:
            runs(client, url, tmp_path / "files")
        assert "Succeeded" in release.test()


def test_where_pod_security_restricted_is_enforced_the_refusal_names_the_setting(cluster: Cluster) -> None:
    with (
        place(cluster, "restricted") as namespace,
        released(cluster, namespace) as release,
        release.forwarded() as client,
    ):
        task = client.reached(client.create(sh("true")), "SYSTEM_ERROR")
        assert "pod_security = restricted" in "".join(task["logs"][0]["system_logs"])


@pytest.mark.parametrize("mode", ["taskmaster", "pod"])
def test_tasks_that_run_end_with_their_release(cluster: Cluster, lab: str, mode: str) -> None:
    with (
        released(cluster, lab, {"tasks.graceSeconds": 1, "tasks.mode": mode}) as release,
        release.forwarded() as client,
    ):
        client.reached(client.create(sh("sleep 1000"), volumes=["/work"]), "RUNNING")
        client.create({"image": "localhost/absent:1", "command": ["true"]})
    assert left(cluster, lab) == set()


def test_an_administrator_of_the_namespace_alone_can_install_it(cluster: Cluster, lab: str, tmp_path: Path) -> None:
    subject = {"kind": "ServiceAccount", "name": "installer", "namespace": lab}
    group = "rbac.authorization.k8s.io"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "installer", "namespace": lab}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "installer", "namespace": lab},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "admin"},
            "subjects": [subject],
        },
    )
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": cluster.kubectl("-n", lab, "create", "token", "installer").strip()}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with released(cluster._replace(kubeconfig=tmp_path / "kubeconfig"), lab) as release:
        assert "Succeeded" in release.test()
    cluster.kubectl("-n", lab, "delete", "serviceaccount,rolebinding", "installer")


NAMES = ("tesk", "tesk-server", "2024", "my.lab", "a" * 53, "a" * 52 + "1")


def test_releases_of_any_name_have_objects_of_their_own_that_kubernetes_takes(cluster: Cluster, lab: str) -> None:
    """What each release would make is checked by the API server, which makes nothing of it."""
    objects = [each for name in NAMES for each in rendered(IMAGE, release=name, namespace=lab)]
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names) >= len(NAMES)
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    said = cluster.kubectl("-n", lab, "create", "--dry-run=server", "-f", "-", given=everything)
    assert said.count("created (server dry run)") == len(names)


def test_releases_whose_names_begin_alike_live_side_by_side(cluster: Cluster, lab: str) -> None:
    with released(cluster, lab, name=NAMES[-2]) as one, released(cluster, lab, name=NAMES[-1]) as other:
        with one.forwarded() as first, other.forwarded() as second:
            ids = [client.create(sh("echo hello")) for client in (first, second)]
            for client, task_id, foreign in zip((first, second), ids, reversed(ids), strict=True):
                assert client.reached(task_id, "COMPLETE")["logs"][0]["logs"][0]["stdout"] == "hello\n"
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    client.task(foreign)
        other.test()


def test_an_upgrade_loses_no_running_task(cluster: Cluster, lab: str) -> None:
    """The executor goes on only when the upgrade is done; a second one then runs under the new server."""
    with released(cluster, lab) as release:
        with release.forwarded() as client:
            task_id = client.create(sh("until [ -e /tmp/go ]; do sleep 0.1; done; echo first"), sh("echo second"))
            client.reached(task_id, "RUNNING")
            before = release.find("pods")["metadata"]["uid"]
        executor = f"tesk-{task_id}-executor-0"
        uid = cluster.kubectl("-n", lab, "get", "pod", executor, "-o", "jsonpath={.metadata.uid}")
        release.upgrade({"tasks.retries": 3})
        assert release.find("pods")["metadata"]["uid"] != before
        with release.forwarded() as client:
            assert client.task(task_id)["state"] == "RUNNING"
            assert cluster.kubectl("-n", lab, "get", "pod", executor, "-o", "jsonpath={.metadata.uid}") == uid
            cluster.kubectl("-n", lab, "exec", executor, "-c", "executor", "--", "touch", "/tmp/go")
            (log,) = client.reached(task_id, "COMPLETE")["logs"]
            assert [(each["exit_code"], each["stdout"]) for each in log["logs"]] == [(0, "first\n"), (0, "second\n")]


ASKING = """\
until [ -e /go ]; do
    wget -q -O /dev/null "$1/ga4gh/tes/v1/service-info" || echo refused
    n=$((n + 1))
done
echo "asked $n times"
"""
"""Asks a server all the time, by a new connection each time."""


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_upgrade_of_everything_refuses_no_request(cluster: Cluster, lab: str, replicas: int) -> None:
    """The one who asks is a task of the server itself. It asks by address: a name may once not be found in time."""
    values = {"front.replicas": replicas, "front.drainSeconds": 30, "networkPolicy.enabled": False}
    with released(cluster, lab, values | {"front.waitSeconds": 600}) as release:
        address = release.find("services")["spec"]["clusterIP"]
        asking = {"image": BUSYBOX, "command": ["sh", "-c", ASKING, "sh", f"http://{address}"]}
        with release.forwarded() as client:
            task_id = client.create(asking)
            client.reached(task_id, "RUNNING")
        release.upgrade(values | {"tasks.retries": 1, "front.waitSeconds": 601})
        release.upgrade(values | {"tasks.retries": 2, "front.waitSeconds": 602})
        cluster.kubectl("-n", lab, "exec", f"tesk-{task_id}-executor-0", "-c", "executor", "--", "touch", "/go")
        with release.forwarded() as client:
            stdout = client.reached(task_id, "COMPLETE")["logs"][0]["logs"][0]["stdout"]
        assert re.fullmatch(r"asked \d+ times\n", stdout)


def test_postgresql_is_named_by_an_existing_secret(cluster: Cluster, lab: str) -> None:
    with postgres(settings={"listen_addresses": "0.0.0.0"}) as server:
        with (server.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")
        server.psql("SELECT pg_reload_conf()")
        url = server.new_database()
        cluster.apply(secret("database", lab, dsn=url.replace("127.0.0.1", cluster.host)))
        values = {"database.postgresql.existingSecret": "database", "database.postgresql.key": "dsn"}
        with released(cluster, lab, values) as release, release.forwarded() as client:
            task_id = client.run(sh("true"))["id"]
            assert server.psql("SELECT count(*) FROM task", url) != "0"
            assert not cluster.get(lab, "persistentvolumeclaims")
            release.upgrade(values | {"tasks.retries": 1})
            with release.forwarded() as later:
                assert later.task(task_id)["state"] == "COMPLETE"
        cluster.kubectl("-n", lab, "delete", "secret", "database")


def test_file_urls_lie_on_an_existing_claim(cluster: Cluster, tmp_path: Path) -> None:
    with place(cluster, given={"PersistentVolumeClaim/shared"}) as namespace:
        share(cluster, namespace, tmp_path)
        write(tmp_path / "in" / "a", "one")
        values = {"storage.fileRoots": [{"path": "/lab", "claim": "shared"}]}
        with released(cluster, namespace, values) as release, release.forwarded() as client:
            client.run(
                sh("tr a-z A-Z </in/a >/out/a"),
                inputs=[{"path": "/in/a", "url": "file:///lab/in/a"}],
                outputs=[{"path": "/out/a", "url": "/lab/out/a"}],
            )
            assert (tmp_path / "out" / "a").read_text() == "ONE"
            refused = client.create(sh("true"), inputs=[{"path": "/in/a", "url": "file:///etc/passwd"}])
            assert "file_roots" in json.dumps(client.reached(refused, "SYSTEM_ERROR"))


def test_filers_alone_have_the_keys_of_the_storage(cluster: Cluster, lab: str, tmp_path: Path) -> None:
    (tmp_path / "s3" / "lab").mkdir(parents=True)
    values = {
        "storage.environmentSecret": "keys",
        "storage.mounts": [{"path": "/credentials/files", "secret": "files"}],
    }
    with s3_server(tmp_path / "s3", cluster.host) as store:
        cluster.apply(secret("keys", lab, **store.environment()), secret("files", lab, key="hidden"))
        with released(cluster, lab, values) as release, release.forwarded() as client:
            task_id = client.create(
                sh("until [ -e /go ]; do sleep 0.1; done; env >/out/env; mount; ls -R /credentials || true"),
                outputs=[{"path": "/out/env", "url": "s3://lab/env"}],
            )
            client.reached(task_id, "RUNNING")
            inputs = pod(cluster, lab, f"tesk-{task_id}-inputs")
            assert {"secretRef": {"name": "keys"}} in inputs["spec"]["containers"][0]["envFrom"]
            assert "files" in {each.get("secret", {}).get("secretName") for each in inputs["spec"]["volumes"]}
            executor = f"tesk-{task_id}-executor-0"
            assert not {"keys", "files"} & set(re.findall(r"\w+", json.dumps(pod(cluster, lab, executor)["spec"])))
            cluster.kubectl("-n", lab, "exec", executor, "-c", "executor", "--", "touch", "/go")
            stdout = client.reached(task_id, "COMPLETE")["logs"][0]["logs"][0]["stdout"]
            assert "AWS" not in (tmp_path / "s3" / "lab" / "env").read_text()
            assert "credentials" not in stdout
            assert "serviceaccount" not in stdout
        cluster.kubectl("-n", lab, "delete", "secret", "keys", "files")


def pod(cluster: Cluster, namespace: str, name: str) -> Object:
    found: Object = json.loads(cluster.kubectl("-n", namespace, "get", "pod", name, "-o", "json"))
    return found


def test_a_server_that_is_not_ready_still_says_why_and_takes_tasks(cluster: Cluster, lab: str) -> None:
    with released(cluster, lab) as release:
        role = json.loads(cluster.kubectl("-n", lab, "get", "role", "tesk-server", "-o", "json"))
        without = [rule for rule in role["rules"] if "jobs" not in rule["resources"]]
        cluster.kubectl("-n", lab, "patch", "role", "tesk-server", "--type=merge", "-p", json.dumps({"rules": without}))
        until(lambda: not may(cluster, lab, "tesk-server", "create", "jobs"), what="the loss of the right")
        with release.forwarded() as client:
            task_id = client.create(sh("true"))
            until(lambda: "create jobs" in trouble(client), what="the reason of the server's not being ready")
        until(lambda: not is_ready(release), what="the server's not being ready")
        with release.forwarded() as client:
            until(lambda: "create jobs" in trouble(client), what="the same reason through a Service that is not ready")
            role_again = json.dumps({"rules": role["rules"]})
            cluster.kubectl("-n", lab, "patch", "role", "tesk-server", "--type=merge", "-p", role_again)
            client.reached(task_id, "COMPLETE")
        until(lambda: is_ready(release), what="the server's being ready")


def trouble(client: Client) -> str:
    """Why the server is not ready, by its own words; empty when it is."""
    try:
        client.call("/readyz")
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return error.read().decode()
    return ""


def is_ready(release: Release) -> bool:
    conditions = release.find("pods")["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_the_records_of_tasks_outlive_a_release_when_asked_to(cluster: Cluster, lab: str) -> None:
    values = {"database.sqlite.keep": True}
    with released(cluster, lab, values) as release, release.forwarded() as client:
        task_id = client.run(sh("true"))["id"]
    assert left(cluster, lab, {"PersistentVolumeClaim/tesk-data"}) == set()
    with released(cluster, lab, values | {"database.sqlite.keep": False}) as release, release.forwarded() as client:
        assert client.task(task_id)["state"] == "COMPLETE"


EVERYTHING = {
    "database.postgresql.existingSecret": "database",
    "image.pullSecrets": ["registry"],
    "tasks.labels": {"team": "a"},
    "server.extraEnv": [{"name": "TZ", "value": "UTC"}],
    "server.tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "server.priorityClassName": "system-cluster-critical",
    "service.type": "NodePort",
    "ingress.enabled": True,
    "ingress.hosts": [{"host": "tes.example.org"}],
    "ingress.tls": [{"hosts": ["tes.example.org"], "secretName": "tes"}],
    "podDisruptionBudget": {"server": True, "tasks": True},
    "networkPolicy.server.from": [{"namespaceSelector": {}}],
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_api_server_knows_every_field_of_every_object(cluster: Cluster, lab: str, values: Object) -> None:
    objects = {"apiVersion": "v1", "kind": "List", "items": rendered(values, namespace=lab)}
    arguments = ("-n", lab, "create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")
    made = cluster.kubectl(*arguments, given=json.dumps(objects)).split()
    assert len(made) == len(objects["items"])
