"""Where a taskmaster begins: what it is told by its pod, and its threads."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tesk.kubernetes import document, manifests, names
from tesk.kubernetes.objects import Pod, PodList, WatchEvent
from tesk.taskmaster.api import Api, ApiError, follow
from tesk.taskmaster.life import Life
from tesk.taskmaster.listener import MessageListener
from tesk.taskmaster.observations import Observations
from tesk.taskmaster.record_writer import Superseded

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger(__name__)

USAGE: Final = """\
usage: tesk taskmaster

Runs one task on the cluster that it runs in itself: the API server starts it as a Job, nobody else does.
"""

_pods = msgspec.json.Decoder(PodList).decode
_event = msgspec.json.Decoder(WatchEvent).decode
_pod = msgspec.json.Decoder(Pod).decode


def main(argv: Sequence[str]) -> int:
    """The command `tesk taskmaster`; 0 when the task's end is on record, whatever it is."""
    if argv:
        sys.stdout.write(USAGE)
        return 0 if argv[0] in ("--help", "-h") else 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _end)
    task_id = os.environ["TESK_TASK"]
    folder = Path(manifests.TASK_FOLDER)
    task, cluster, token = document.read(folder)
    api = Api(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]), cluster.namespace)
    observations = Observations()
    listener = MessageListener(observations, names.MESSAGE_PORT, token)
    selector = names.selector(cluster.instance, task_id)
    watching = threading.Thread(target=_watch, args=(api, observations, selector), name="watch", daemon=True)
    watching.start()
    life = Life(
        task_id, task, cluster, own=socket.gethostname(), owner_uid=_owner_uid(), parts=document.count(folder),
        address=f"{_bracketed(os.environ['TESK_POD_IP'])}:{names.MESSAGE_PORT}", api=api, observations=observations,
    )  # fmt: skip
    try:
        log.info("task %s: %s", task_id, life.live().name)
    except Superseded as error:
        log.error("task %s: %s; this taskmaster gives way", task_id, error)
        return 1
    finally:
        listener.close()
        api.close()
    return 0


def _watch(api: Api, observations: Observations, selector: str) -> None:
    def replace(listing: bytes) -> str:
        found = _pods(listing)
        observations.replace({pod.metadata.name: pod for pod in found.items})
        return found.metadata.resource_version

    def change(line: bytes) -> str:
        event = _event(line)
        if event.type == "ERROR":
            raise ApiError(410, "Expired", bytes(event.object).decode(errors="replace"))
        pod = _pod(event.object)
        if event.type != "BOOKMARK":
            observations.change(pod, gone=event.type == "DELETED")
        return pod.metadata.resource_version

    try:
        follow(api, "pods", selector, replace, change)
    except BaseException:
        log.exception("the watch of the task's pods failed; beginning again")
        os._exit(1)


def _owner_uid() -> str:
    return os.environ["TESK_JOB_UID"]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _end(number: int, _: "FrameType | None") -> None:
    os._exit(128 + number)
