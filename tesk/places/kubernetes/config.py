"""How to reach the cluster: the service account of the pod that this runs in, or kubeconfig files.

Kubeconfig is read as kubectl reads it (Kubernetes documentation, "Organizing Cluster Access Using kubeconfig Files"),
as far as a server that runs unattended can use it: certificates, tokens, token files and credential plugins. What
would make requests go another way, or as somebody else, is refused rather than left out.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct

from tesk.kubernetes.account import Account, account
from tesk.places.base import PlaceError

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REFUSED: Final = ("proxy-url", "auth-provider", "as", "as-uid", "as-groups", "as-user-extra")
FILES: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
GROUPS: Final = {"contexts": "context", "clusters": "cluster", "users": "user"}


class Plugin(Struct, frozen=True):
    """A credential plugin (client.authentication.k8s.io). `cluster`: what it is told of the cluster, if it asks."""

    command: str
    args: list[str]
    env: dict[str, str]
    api_version: str
    hint: str = ""
    cluster: dict[str, Any] | None = None


class Access(Struct, frozen=True):
    """A cluster and who we are there. `server`: base URL. A token file or a plugin goes before the token.

    `account`: of the namespace, where we run inside.
    """

    server: str
    namespace: str
    ca: bytes | None = None
    insecure: bool = False
    certificate: bytes | None = None
    key: bytes | None = None
    token: str = ""
    token_file: Path | None = None
    plugin: Plugin | None = None
    account: Account | None = None


def load(kubeconfig: str, environ: Mapping[str, str], context: str = "") -> Access:
    """The cluster to use: `kubeconfig` if given, else the one around this pod, else $KUBECONFIG or ~/.kube/config.

    `context` is one of the file's, by default its current one. Raises PlaceError.
    """
    if not kubeconfig and environ.get("KUBERNETES_SERVICE_HOST") and (ACCOUNT / "token").exists():
        return _inside(environ)
    given = kubeconfig or environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [Path(path).expanduser() for path in given.split(os.pathsep) if path]
    documents = [_read(path) for path in paths if len(paths) == 1 or path.exists()]
    try:
        return parse(merged(documents), context)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise PlaceError(f"{given}: not a usable kubeconfig: {words}") from None


def merged(documents: Sequence[tuple[Any, Path]]) -> dict[str, Any]:
    """One kubeconfig of several, each with its folder: the first to set something wins; file names become absolute."""
    found: dict[str, Any] = {"current-context": "", **{group: {} for group in GROUPS}}
    for document, folder in documents:
        found["current-context"] = found["current-context"] or document.get("current-context") or ""
        for group, kind in GROUPS.items():
            for entry in document.get(group) or ():
                found[group].setdefault(entry["name"], _absolute(entry.get(kind) or {}, folder))
    return found


def parse(config: Mapping[str, Any], context: str = "") -> Access:
    """What a context of a merged kubeconfig says. Raises ValueError, KeyError, OSError."""
    chosen = _named(config, "contexts", context or config["current-context"])
    cluster = _named(config, "clusters", chosen["cluster"])
    user = _named(config, "users", chosen["user"]) if chosen.get("user") else {}
    for field in REFUSED:
        if cluster.get(field) or user.get(field):
            raise ValueError(f"{field} is not supported")
    if user.get("username"):
        raise ValueError("user name and password are not supported")
    return Access(
        server=cluster["server"].rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        ca=_data(cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        certificate=_data(user, "client-certificate"),
        key=_data(user, "client-key"),
        token=user.get("token") or "",
        token_file=Path(user["tokenFile"]) if user.get("tokenFile") else None,
        plugin=_plugin(user["exec"], cluster) if user.get("exec") else None,
    )


def tls(access: Access) -> ssl.SSLContext:
    """The TLS context for the cluster."""
    context = ssl.create_default_context(cadata=access.ca.decode() if access.ca else None)
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate and access.key:
        load_chain(context, access.certificate, access.key)
    return context


def load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Puts our certificate in; it passes through files that only this user can read, since ssl takes nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "certificate"), Path(folder, "key")
        for path, data in zip(paths, (certificate, key), strict=True):
            path.write_bytes(data)
        context.load_cert_chain(*paths)


def _inside(environ: Mapping[str, str]) -> Access:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        return Access(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            namespace=(ACCOUNT / "namespace").read_text().strip(),
            ca=(ACCOUNT / "ca.crt").read_bytes(),
            token_file=ACCOUNT / "token",
            account=account((ACCOUNT / "token").read_text().strip()),
        )
    except OSError as error:
        raise PlaceError(f"the pod's service account cannot be used: {error.filename}: {error.strerror}") from None


def _read(path: Path) -> tuple[Any, Path]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise PlaceError(
            f"no cluster: {path}: {error.strerror}; name a kubeconfig file by --kubeconfig, or run inside the cluster"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlaceError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise PlaceError(f"{path}: not a kubeconfig: it is no mapping")
    return document, path.parent


def _absolute(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    found = dict(entry)
    for name in FILES:
        if found.get(name):
            found[name] = str(folder / found[name])
    if (plugin := found.get("exec")) and "/" in plugin.get("command", ""):
        found["exec"] = plugin | {"command": str(folder / plugin["command"])}
    return found


def _named(config: Mapping[str, Any], group: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = config[group].get(name)
    if found is None:
        raise ValueError(f"{group}: there is none named {name!r}" if name else "no context is the current one")
    return found


def _data(of: Mapping[str, Any], name: str) -> bytes | None:
    if given := of.get(f"{name}-data"):
        return base64.b64decode(given)
    return Path(of[name]).read_bytes() if of.get(name) else None


def _plugin(given: Mapping[str, Any], cluster: Mapping[str, Any]) -> Plugin:
    told = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data")
    return Plugin(
        given["command"],
        list(given.get("args") or ()),
        {each["name"]: each["value"] for each in given.get("env") or ()},
        given["apiVersion"],
        given.get("installHint") or "",
        {name: cluster[name] for name in told if name in cluster} if given.get("provideClusterInfo") else None,
    )
