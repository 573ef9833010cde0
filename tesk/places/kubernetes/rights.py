"""The rights that the server and its taskmasters need in their namespace, and which of its own the server lacks.

Asked for at the start and now and then, so that a missing verb shows before a task runs into it, and again while one
is missing or the API is away, so that this is forgotten as soon as it is over, even when no task asks for anything.
"""

import asyncio
import logging
import time
from typing import Final

from tesk.kubernetes.errors import ApiError
from tesk.places.kubernetes.client import OPTIONAL as optional
from tesk.places.kubernetes.client import Client

log = logging.getLogger(__name__)

AGAIN_S: Final = 60.0
AGAIN_TROUBLE_S: Final = 3.0

NEEDED: Final = {
    "jobs": ("create", "get", "list", "watch", "patch", "delete"),
    "secrets": ("create", "delete"),
    "configmaps": ("list", "watch", "delete"),
    "pods": ("list", "watch", "delete"),
    "pods/log": ("get",),
    "persistentvolumeclaims": ("delete",),
    "events": ("list",),
}
"""By resource: the verbs that this engine uses, and no others."""

WITH_PODS: Final = NEEDED | {"pods": ("create", *NEEDED["pods"])}
"""The same where the server makes the pods of whole tasks. The chart's Role always has them: whoever may create Jobs
may create pods, and a task that began as one pod is tried again as one."""

TASKMASTER: Final = {
    "configmaps": ("get", "create", "patch"),
    "pods": ("get", "list", "watch", "create", "delete"),
    "pods/log": ("get",),
    "persistentvolumeclaims": ("create", "delete"),
    "events": ("list",),
}
"""The same of taskmasters."""

OPTIONAL: Final = dict.fromkeys(sorted(optional), ("list", "watch"))
"""What the server reads where it may, so that tasks fit into a namespace that has such objects."""


class Rights:
    """Keeps `client.lacking` true."""

    def __init__(self, client: Client, *, makes_pods: bool) -> None:
        self._client = client
        self._needed = WITH_PODS if makes_pods else NEEDED
        self._asked_at: float | None = None
        self._asks = False

    async def check(self) -> None:
        """Asks again if that is due; what is missing is logged once."""
        pause_s = AGAIN_S if self._client.trouble() is None else AGAIN_TROUBLE_S
        moment = time.monotonic()
        if self._asks or (self._asked_at is not None and moment - self._asked_at < pause_s):
            return
        self._asked_at, self._asks = moment, True
        try:
            await self._ask()
        finally:
            self._asks = False

    async def _ask(self) -> None:
        lacking = self._client.lacking
        due = [(verb, kind) for kind, verbs in self._needed.items() for verb in verbs]
        try:
            answers = await asyncio.gather(*(self._client.review(verb, kind) for verb, kind in due))
        except ApiError as error:
            log.info("the rights of our account cannot be asked for: %s", error)
            return
        for (verb, kind), is_allowed in zip(due, answers, strict=True):
            if is_allowed:
                if lacking.pop((verb, kind), None):
                    log.info("our account may %s %s again", verb, kind)
            elif (verb, kind) not in lacking:
                words = f"our account may not {verb} {kind} in namespace {self._client.namespace}; see its Role"
                log.error("%s", words)
                lacking[verb, kind] = words
