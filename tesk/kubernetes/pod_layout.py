"""The layout of a task that runs in one pod (pure).

Its containers are made before anything can look at their images. So whatever an image may have in a directory counts as
there: such a directory is never mounted, and the shim copies the files that lie there in and out. The server lays out
the mounts by this, the runner the transfers.
"""

from tesk.layout import Found, Layout, doubtful, layout
from tesk.tes import Task


def pod_layout(task: Task) -> Layout:
    """Where each path of the task lies on its scratch volume, and what is mounted."""
    return layout(task, Found(occupied=dict.fromkeys(doubtful(task), True)))
