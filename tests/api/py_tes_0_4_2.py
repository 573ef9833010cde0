"""Drives a server with py-tes 0.4.2, as Snakemake and Toil do, and prints what it saw as JSON.

Run by test_clients.py in an environment that has that version; arguments: the server's URL, the id of a task that was
made before, and what the client signs in with, as JSON.
"""

import json
import sys
from importlib.metadata import version
from typing import Any

import tes  # type: ignore[import-untyped]

VIEWS = ("MINIMAL", "BASIC", "FULL")


def main(url: str, ended: str, credential: str = "{}") -> dict[str, Any]:
    nothing = {"token": None, "user": None, "password": None}
    client = tes.HTTPClient(url, timeout=180, **{**nothing, **json.loads(credential)})
    task = tes.Task(
        name="old client",
        inputs=[tes.Input(path="/in", content="x")],
        outputs=[tes.Output(path="/out", url="s3://bucket/out", type="FILE")],
        executors=[tes.Executor(image="alpine", command=["true"], workdir="/tmp", env={"A": "b"})],
        resources=tes.Resources(cpu_cores=1, ram_gb=1.5),
        tags={"a": "b"},
    )
    identifier = client.create_task(task)
    created = {view: client.get_task(identifier, view).as_dict() for view in VIEWS}
    listed = [one.id for view in VIEWS for one in client.list_tasks(view=view, page_size=10).tasks]
    client.cancel_task(identifier)
    return {
        "version": version("py-tes"),
        "service_info": client.get_service_info().as_dict(),
        "id": identifier,
        "created": created,
        "listed": listed,
        "after_cancel": client.wait(identifier, timeout=180).state,
        "ended": {view: client.get_task(ended, view).as_dict() for view in VIEWS},
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), default=str))
