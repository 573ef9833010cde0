"""The demonstration's server in a cluster: the node of scripts/cluster, the product's image and its chart."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from scripts.demo_image import IMAGE, image

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tesk"
PRODUCT: Final = "localhost/tesk:dev"
NAMESPACE: Final = "tesk-demo"
RELEASE: Final = "tesk"
READY_S: Final = 120


@contextlib.contextmanager
def serving(folder: Path, *, keep: bool) -> Iterator[tuple[str, str, list[str]]]:
    """The server's URL, an address of this machine that filers reach, and what to print at the end."""
    with contextlib.ExitStack() as cleanup:
        if not keep:
            cleanup.callback(shutil.rmtree, folder)
        was_up = cluster("status", quiet=True, check=False) != ""
        if not keep and not was_up:
            cleanup.callback(cluster, "down")
        kubeconfig = cluster("up").strip()
        load_images()
        kubectl("create", "namespace", NAMESPACE)
        if not keep and was_up:
            cleanup.callback(kubectl, "delete", "namespace", NAMESPACE, "--wait=false")
        values = {"image.repository": "localhost/tesk", "image.tag": "dev", "service.type": "NodePort"}
        values["people.anyone"] = "true"
        chosen = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        helm = ["helm", "install", RELEASE, "charts/tesk", "--namespace", NAMESPACE, *chosen]
        print("$", *helm, flush=True)
        environment = {**os.environ, "KUBECONFIG": kubeconfig}
        done = subprocess.run([program(), *helm[1:]], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit("demo: the chart was not installed; see above")
        if not keep and was_up:
            uninstall = [program(), "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]
            cleanup.callback(subprocess.run, uninstall, env=environment, stdout=subprocess.DEVNULL, check=True)
        url, machine = addresses()
        until_ready(url)
        yield (
            url,
            machine,
            [
                f"kubeconfig: {kubeconfig}",
                f"namespace: {NAMESPACE}",
                f"It is left up: `tesk run --server {url} --image {IMAGE} -- echo hello` runs another task on it.",
                "End it:        scripts/cluster down",
            ],
        )


def load_images() -> None:
    """Gives the node the product's image, built from the Dockerfile, and the demonstration's."""
    product = CACHE / "image" / "tesk.tar"
    subprocess.run([ROOT / "scripts" / "image", product, PRODUCT], check=True)
    with tempfile.NamedTemporaryFile(suffix=".tar") as demo:
        demo.write(image())
        demo.flush()
        cluster("import", str(product), demo.name)


def addresses() -> tuple[str, str]:
    """The service's URL on the node, and this machine's address as pods see it."""
    service = json.loads(kubectl("-n", NAMESPACE, "get", "service", f"{RELEASE}-server", "-o", "json", quiet=True))
    machine = cluster("in", "ip", "route", "show", "default", quiet=True).split()[2]
    link = cluster("in", "ip", "-4", "-o", "route", "get", machine, quiet=True).split()
    node = link[link.index("src") + 1]
    return f"http://{node}:{service['spec']['ports'][0]['nodePort']}", machine


def until_ready(url: str) -> None:
    print("waiting until the server is ready", flush=True)
    limit = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=5).is_success:
                return
        if time.monotonic() > limit:
            raise SystemExit(f"demo: the server is not ready:\n{kubectl('-n', NAMESPACE, 'get', 'pods', quiet=True)}")
        time.sleep(0.1)


def program() -> str:
    """Helm: the one on PATH, or the one that scripts/ensure has built."""
    built = sorted(CACHE.glob("helm-v3*/helm"))
    return shutil.which("helm") or str(built[-1])


def kubectl(*words: str, quiet: bool = False) -> str:
    return cluster("kubectl", *words, quiet=quiet)


def cluster(*words: str, quiet: bool = False, check: bool = True) -> str:
    """Runs scripts/cluster; what it printed."""
    if not quiet:
        print("$ scripts/cluster", *words, flush=True)
    done = subprocess.run([ROOT / "scripts" / "cluster", *words], stdout=subprocess.PIPE, text=True, check=check)
    return done.stdout if done.returncode == 0 else ""
