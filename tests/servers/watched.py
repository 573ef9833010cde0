"""Looks for known secrets in what tesk makes in a namespace of a cluster: see tests/known_secrets.py.

tesk deletes the objects of a task soon after its end. So a thread watches the namespace, and looks at an object as it
was when it was deleted. At the end of the namespace tests/servers/cluster.py looks at those that are left.
"""

import asyncio
import base64
import contextlib
import threading
from collections import deque
from typing import Any, Final

import httpx
import msgspec

from tesk.kubernetes import names
from tests import known_secrets

KINDS: Final = ("pods", "configmaps")
WORDS: Final = 100
"""Only the words of the last tasks are looked for, so that a storm of tasks costs no more than it has to."""
AGAIN_S: Final = 1.0

Object = dict[str, Any]


class Watcher:
    """Watches a namespace in a thread of its own until it is told to stop."""

    def __init__(self, namespace: str, options: dict[str, Any]) -> None:
        self._namespace, self._options = namespace, options
        self._words = deque[str]()
        self._loop = asyncio.new_event_loop()
        self._all: asyncio.Task[None] | None = None
        self._is_watching = threading.Event()
        self._begun = 0
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()
        self._is_watching.wait(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._all and self._all.cancel())
        self._thread.join(30)
        for word in self._words:
            known_secrets.forget(word)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._watch_all())
        self._loop.close()

    async def _watch_all(self) -> None:
        self._all = asyncio.current_task()
        async with httpx.AsyncClient(**self._options) as api, asyncio.TaskGroup() as group:
            for kind in (*KINDS, "secrets"):
                group.create_task(self._watch(api, kind))

    async def _watch(self, api: httpx.AsyncClient, kind: str) -> None:
        """Watches one kind over and over: a test may stop the API server, and the server ends a watch by itself."""
        path = f"/api/v1/namespaces/{self._namespace}/{kind}"
        while True:
            with contextlib.suppress(httpx.HTTPError, msgspec.DecodeError):
                listed = (await api.get(path, params={"limit": 1})).raise_for_status().json()
                asked = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
                async with api.stream("GET", path, params=asked) as answer:
                    self._begin()
                    async for line in answer.aiter_lines():
                        self._see(kind, line)
            await asyncio.sleep(AGAIN_S)

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > len(KINDS):
            self._is_watching.set()

    def _see(self, kind: str, line: str) -> None:
        if kind == "secrets":
            if line.startswith('{"type":"ADDED"'):
                self._learn(msgspec.json.decode(line)["object"])
        elif line.startswith('{"type":"DELETED"'):
            look_at(kind, msgspec.json.decode(line)["object"])

    def _learn(self, secret: Object) -> None:
        """The word of a task's reports is known from now on: nobody but the task's own pods may."""
        if word := (secret.get("data") or {}).get(names.TOKEN_KEY):
            name = f"the word of Secret {secret['metadata']['name']}"
            self._words.append(known_secrets.known(name, base64.b64decode(word).decode()))
            if len(self._words) > WORDS:
                known_secrets.forget(self._words.popleft())


def look_at(kind: str, found: Object) -> None:
    """Looks at an object, and at what a ConfigMap has in base64."""
    where = f"{kind}/{found['metadata']['name']}"
    known_secrets.look(where, msgspec.json.encode(found))
    for value in (found.get("binaryData") or {}).values():
        known_secrets.look(where, base64.b64decode(value))
