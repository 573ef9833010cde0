"""The Kubernetes API for one taskmaster: plain requests on one connection, and a watch on another.

The standard library's client is used since a process that lives for seconds must not spend a third of one on imports.
Requests are patient: a cluster whose API is away, slow or refuses for the moment is a reason to wait, never to fail.
"""

import contextlib
import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from tesk.kubernetes import names
from tesk.kubernetes.errors import ApiError as ApiError
from tesk.kubernetes.keepalive import SILENCE_S, keep_alive
from tesk.retry import pauses

log = logging.getLogger(__name__)

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S: Final = 30.0
WATCH_S: Final = 300
PAUSES_S: Final = (0.1, 5.0)
STEADY_S: Final = 5.0
"""A watch that held for so long is not what the next failure is about."""
MOST_LOG_BYTES: Final = 12 * 1024 * 1024
GAP: Final = b"...\n"
"""A line that stands for those of a log that were not read."""
LOG_TIMEOUT_S: Final = 8.0
LOG_PATIENCE_S: Final = 15.0
"""For so long a log is asked for: its node may be away for good, and all else must not wait for it."""
TOLD_AFTER: Final = 4
"""So many failures of a creation may pass without anybody being told of them."""


class Api:
    """One namespace of the cluster that this pod runs in, by one connection: not for use by two threads at once."""

    def __init__(self, host: str, port: int, namespace: str, account: Path = ACCOUNT) -> None:
        self._host, self._port, self.namespace, self._account = host, port, namespace, account
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._connection: http.client.HTTPSConnection | None = None

    def beside(self) -> "Api":
        """The same for another thread."""
        other = copy(self)
        other._connection = None
        return other

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, kind: str, name: str) -> bytes | None:
        """The object as JSON; None if there is none."""
        return self._or_none(404, "GET", self._path(kind, name))

    def create(self, kind: str, manifest: dict[str, Any]) -> bytes | None:
        """The new object as JSON; None if one of that name exists. Raises ApiError for a refusal that will last."""
        return self._or_none(409, "POST", self._path(kind), manifest)

    def merge(self, kind: str, name: str, patch: dict[str, Any]) -> bytes | None:
        """The object after a JSON merge patch (RFC 7386); None if there is none.

        Raises ApiError (`is_conflict`) where the patch names a resourceVersion that is not the object's any more.
        """
        return self._or_none(404, "PATCH", self._path(kind, name), patch, "application/merge-patch+json")

    def delete(self, kind: str, name: str, grace_s: int | None = None) -> None:
        """Asks for the object's end; it may be gone already."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        self._or_none(404, "DELETE", self._path(kind, name), options)

    def find(self, kind: str, **query: str) -> bytes:
        """The list of a kind as JSON, by labelSelector or fieldSelector."""
        return self._patiently("GET", f"{self._path(kind)}?{urlencode(query)}")

    def logs(self, pod: str, container: str, lines: int) -> bytes | None:
        """The end of a container's log, whole lines of it: empty when there is none any more, None when nobody answers
        for it, as when its node is away.

        Of a log that is too long what comes first is read, and then its end.
        """
        found = end = self._log(pod, container, lines)
        while end and len(end) >= MOST_LOG_BYTES and lines > 1:
            lines //= 10
            end = self._log(pod, container, lines)
        return found if end is found or not found or not end else joined(found, end)

    def _log(self, pod: str, container: str, lines: int) -> bytes | None:
        query = urlencode({"container": container, "tailLines": lines, "limitBytes": MOST_LOG_BYTES})
        path = f"{self._path('pods', pod)}/log?{query}"
        tried_s = 0.0
        for pause_s in pauses(*PAUSES_S):
            begun, is_away = time.monotonic(), False
            try:
                return self._once("GET", path, None, "", LOG_TIMEOUT_S)
            except ApiError as error:
                words = f"the log of {container} in pod {pod} cannot be had: {error}"
                if not error.is_passing:
                    log.warning("%s", words)
                    return b""
            except (OSError, http.client.HTTPException) as error:
                words = f"the log of {container} in pod {pod} cannot be had: {error!r}"
                self.close()
                is_away = True
            time.sleep(pause_s)
            tried_s += time.monotonic() - begun
            if tried_s >= LOG_PATIENCE_S:
                log.warning("%s", words)
                return None
            if is_away:
                self.get("pods", pod)  # for as long as it is the API itself that does not answer
        raise AssertionError

    def watch(self, kind: str, selector: str, version: str) -> Iterator[bytes]:
        """Lines of a watch that begins after `version`, until the server or a silence ends it. Raises ApiError.

        It takes the connection that there is: of a list before it, for one.
        """
        query = {
            "watch": "1", "labelSelector": selector, "resourceVersion": version,
            "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S),
        }  # fmt: skip
        connection, self._connection = self._connected(), None
        with contextlib.closing(connection):
            connection.sock.settimeout(SILENCE_S)
            connection.request("GET", f"{self._path(kind)}?{urlencode(query)}", headers=self._headers())
            answer = connection.getresponse()
            if answer.status != 200:
                raise _refusal(answer.status, answer.read())
            while line := answer.readline():
                yield line

    def _or_none(self, absent: int, method: str, path: str, body: Any = None, kind: str = "") -> bytes | None:
        try:
            return self._patiently(method, path, body, kind)
        except ApiError as error:
            if error.code == absent and (absent != 409 or error.reason == "AlreadyExists"):
                return None
            raise

    def _patiently(self, method: str, path: str, body: Any = None, kind: str = "") -> bytes:
        """Repeats a request while what is in its way may pass. Creation is safe to repeat: names are given.

        A creation that is refused for more than a moment is the caller's to repeat, who can tell what it waits for.
        """
        said: list[str] = []
        for failures, pause_s in enumerate(pauses(*PAUSES_S)):
            try:
                return self._once(method, path, body, kind)
            except ApiError as error:
                if not error.is_passing or (method == "POST" and (error.code == 403 or failures >= TOLD_AFTER)):
                    raise
                if method == "PATCH" and error.is_conflict:
                    raise
                _say_once(said, f"{method} {path}: {error}")
            except (OSError, http.client.HTTPException) as error:
                self.close()
                _say_once(said, f"{method} {path}: the Kubernetes API cannot be reached: {error}")
            time.sleep(pause_s)
        raise AssertionError

    def _once(self, method: str, path: str, body: Any, kind: str, timeout_s: float = TIMEOUT_S) -> bytes:
        connection = self._connection = self._connected()
        connection.sock.settimeout(timeout_s)
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, self._headers(kind or "application/json"))
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise _refusal(answer.status, content)
        return content

    def _connected(self) -> http.client.HTTPSConnection:
        """The connection that there is, or another where the API has closed it, as one that shuts down does."""
        if self._connection is None or self._connection.sock is None:
            return self._connect(TIMEOUT_S)
        return self._connection

    def _connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        connection.connect()
        keep_alive(connection.sock)
        return connection

    def _headers(self, kind: str = "") -> dict[str, str]:
        token = (self._account / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": "tesk-taskmaster"}
        return headers | ({"Content-Type": kind} if kind else {})

    def _path(self, kind: str, name: str = "") -> str:
        namespace = names.segment(self.namespace)
        return f"/api/v1/namespaces/{namespace}/{kind}" + (f"/{names.segment(name)}" if name else "")


def follow(api: Api, kind: str, selector: str, replace: Callable[[bytes], str], change: Callable[[bytes], str]) -> None:
    """Lists and watches a kind for ever. `replace` takes a list, `change` a watch event; both give the version.

    `change` raises ApiError for an event that ends the watch (410: its version is too old), and ValueError for a line
    that was cut short; then it is listed again.
    By a connection of its own, so that a silent one holds up nothing else.
    """
    own = api.beside()
    waits = pauses(*PAUSES_S)
    while True:
        begun = time.monotonic()
        version = replace(own.find(kind, labelSelector=selector))
        try:
            while True:
                for line in own.watch(kind, selector, version):
                    version = change(line)
        except ApiError as error:
            log.info("watching %s: %s; listing again", kind, error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.info("watching %s was cut: %s; listing again", kind, error)
        if time.monotonic() - begun > STEADY_S:
            waits = pauses(*PAUSES_S)
        time.sleep(next(waits))


def joined(log: bytes, end: bytes) -> bytes:
    """A log whose last line may be cut, and its end, which may begin within it or after it: as whole lines."""
    first, last = log.splitlines(keepends=True)[:-1], end.splitlines(keepends=True)
    most = min(len(first), len(last))
    same = next((n for n in range(most, 0, -1) if first[-n] == last[0] and first[-n:] == last[:n]), 0)
    return b"".join([*first, *([] if same else [GAP]), *last[same:]])


def _refusal(code: int, content: bytes) -> ApiError:
    try:
        status = json.loads(content)
        return ApiError(code, status.get("reason", ""), status.get("message", ""))
    except (ValueError, AttributeError):
        return ApiError(code, "", content[:500].decode(errors="replace"))


def _say_once(said: list[str], words: str) -> None:
    if words not in said:
        said.append(words)
        log.warning("%s; trying again", words)
