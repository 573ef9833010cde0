"""Which cluster is used and as whom: kubeconfig as kubectl reads it, and credential plugins as real programs."""

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from tesk.kubernetes.account import Account, account
from tesk.places.base import PlaceError
from tesk.places.kubernetes import config
from tesk.places.kubernetes.config import Access, Plugin
from tesk.places.kubernetes.credential import Credential

CA = base64.b64encode(b"the CA").decode()


def kubeconfig(user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "current-context": "work",
        "contexts": [
            {"name": "work", "context": {"cluster": "c", "user": "u", "namespace": "lab"}},
            {"name": "other", "context": {"cluster": "c"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://h:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def written(folder: Path, document: dict[str, Any], name: str = "config") -> str:
    (folder / name).write_text(yaml.safe_dump(document))
    return str(folder / name)


def loaded(folder: Path, document: dict[str, Any], **options: Any) -> Access:
    return config.load(written(folder, document), {}, **options)


def test_the_current_context_says_where_and_who(tmp_path: Path) -> None:
    access = loaded(tmp_path, kubeconfig({"token": "t"}, {"certificate-authority-data": CA}))
    assert access == Access("https://h:6443", "lab", ca=b"the CA", token="t")


def test_another_context_may_be_named(tmp_path: Path) -> None:
    assert loaded(tmp_path, kubeconfig({"token": "t"}), context="other") == Access("https://h:6443", "default")


def test_files_are_found_beside_the_one_that_names_them(tmp_path: Path) -> None:
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text(name)
    user = {"client-certificate": "crt", "client-key": str(tmp_path / "key"), "tokenFile": "token"}
    access = loaded(tmp_path, kubeconfig(user, {"certificate-authority": "ca"}))
    assert (access.ca, access.certificate, access.key) == (b"ca", b"crt", b"key")
    assert access.token_file == tmp_path / "token"


def test_of_several_files_the_first_to_say_something_wins(tmp_path: Path) -> None:
    first = written(tmp_path, {"clusters": [{"name": "c", "cluster": {"server": "https://first"}}]}, "first")
    (tmp_path / "below").mkdir()
    second = written(tmp_path / "below", kubeconfig({"tokenFile": "token"}))
    access = config.load("", {"KUBECONFIG": f"{first}:{tmp_path}/absent:{second}"})
    assert (access.server, access.namespace) == ("https://first", "lab")
    assert access.token_file == tmp_path / "below" / "token"


def test_a_plugin_is_run_from_beside_the_file(tmp_path: Path) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "env": None, "args": None}
    access = loaded(tmp_path, kubeconfig({"exec": plugin | {"provideClusterInfo": True}}))
    told = {"server": "https://h:6443/"}
    assert access.plugin == Plugin(f"{tmp_path}/login", [], {}, "client.authentication.k8s.io/v1", cluster=told)
    assert loaded(tmp_path, kubeconfig({"exec": plugin | {"command": "login"}})).plugin.command == "login"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({}, {"proxy-url": "http://p"}, "proxy-url is not supported"),
        ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider is not supported"),
        ({"as": "admin"}, {}, "as is not supported"),
        ({"username": "u", "password": "p"}, {}, "user name and password are not supported"),
        ({"client-certificate": "/absent"}, {}, "No such file"),
        ({"exec": {"apiVersion": "v1"}}, {}, "'command' is missing"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, user: Any, cluster: Any, words: str) -> None:
    with pytest.raises(PlaceError, match=words):
        loaded(tmp_path, kubeconfig(user, cluster))


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "not YAML"), ("[]", "no mapping"), ("{}", "no context is the current one"),
     ("{current-context: a}", "contexts: there is none named 'a'")],
)  # fmt: skip
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(PlaceError, match=words):
        config.load(str(tmp_path / "config"), {})


def test_without_any_cluster_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PlaceError, match=r"\.kube/config: No such file .* --kubeconfig, or run inside the cluster"):
        config.load("", {})


def test_the_pods_own_account_is_used_inside_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("token", "ca.crt", "namespace"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(config, "ACCOUNT", tmp_path)
    access = config.load("", {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert access == Access("https://[fd00::1]:443", "namespace", ca=b"ca.crt", token_file=tmp_path / "token")


async def test_a_token_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    credential = Credential(Access("https://h", "n", token="old", token_file=file), ssl.create_default_context())
    for word in ("one", "two"):
        file.write_text(word + "\n")
        assert await credential.token() == word


def plugin(folder: Path, script: str) -> Credential:
    program = folder / "login"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    given = Plugin(str(program), ["word"], {"NAME": "value"}, "client.authentication.k8s.io/v1")
    return Credential(Access("https://h", "n", plugin=given), ssl.create_default_context())


COUNTING = 'echo x >> "$0.runs"; runs=$(wc -l < "$0.runs"); '


async def test_a_plugins_token_is_kept_until_it_expires_or_is_refused(tmp_path: Path) -> None:
    status = '"status": {"token": "\'$runs-$1-$NAME\'", "expirationTimestamp": "2100-01-01T00:00:00Z"}'
    credential = plugin(tmp_path, f"{COUNTING}echo '{{{status}}}'")
    assert [await credential.token() for _ in range(2)] == ["1-word-value"] * 2
    credential.forget()
    assert await credential.token() == "2-word-value"


async def test_a_plugins_expired_token_is_not_used_twice(tmp_path: Path) -> None:
    status = '"status": {"token": "\'$runs\'", "expirationTimestamp": "2000-01-01T00:00:00Z"}'
    credential = plugin(tmp_path, f"{COUNTING}echo '{{{status}}}'")
    assert [await credential.token() for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo who are you >&2; exit 3", "failed with code 3: who are you"),
        ("echo hello", "printed no ExecCredential that can be used"),
        ("echo '{\"status\": {}}'", "neither a token nor a certificate"),
    ],
)
async def test_a_plugin_that_fails_is_named(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(PlaceError, match=words):
        await plugin(tmp_path, script).token()


async def test_a_plugin_that_is_missing_is_named(tmp_path: Path) -> None:
    absent = Plugin(str(tmp_path / "absent"), [], {}, "v1", "Install the cloud's tools")
    credential = Credential(Access("https://h", "n", plugin=absent), ssl.create_default_context())
    with pytest.raises(PlaceError, match=r"absent cannot be started: No such file .*Install the cloud's tools"):
        await credential.token()


def token(claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


BOUND = {"namespace": "lab", "pod": {"name": "p", "uid": "1"}, "serviceaccount": {"name": "tesk-server", "uid": "2"}}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (token({"aud": ["a"], "kubernetes.io": BOUND, "sub": "system:serviceaccount:lab:tesk-server"}), True),
        (token({"kubernetes.io/serviceaccount/service-account.uid": "2"}), False),
        (token({"kubernetes.io": {"namespace": "lab"}}), False),
        (token(["kubernetes.io"]), False),
        ("opaque", False),
        ("a.b.c", False),
        ("e30.%%%.c2ln", False),
    ],
)
def test_a_bound_token_says_whose_it_is(given: str, found: bool) -> None:
    assert account(given) == (Account("tesk-server", "2") if found else None)
