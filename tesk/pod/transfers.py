"""What is to be moved for a task on a cluster, by a filer in a pod of its own or by its runner's."""

import contextlib
import os

import msgspec

from tesk.filer import scratch
from tesk.filer.plan import InputsPlan, OutputsPlan, Plan
from tesk.kubernetes import manifests, names
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import Layout
from tesk.tes import Task


def plan(
    task: Task, cluster: TaskSettings, step: str, laid: Layout, *, failed: bool, root: str = manifests.SCRATCH,
    copies_all: bool = False,
) -> Plan:  # fmt: skip
    """What is to be moved; after a failed executor an output that is not there is no error. `copies_all`: however large
    an input is, it gets no mount of its own."""
    if step == names.INPUTS:
        directories, touched = list(laid.directories), list(laid.touched)
        inputs = list(task.inputs or ())
        return InputsPlan(root, inputs, directories, touched, cluster.filer, laid.uncopied, copies_all)
    settings = msgspec.structs.replace(cluster.filer, missing_outputs="warning") if failed else cluster.filer
    return OutputsPlan(root, list(task.outputs or ()), settings, laid.uncopied)


def scrub(root: str) -> None:
    """Empties the volume as far as this user may: it is deleted next, but some storage keeps what it held."""
    for name in os.listdir(root):
        with contextlib.suppress(OSError):
            scratch.scrub(os.path.join(root, name))
