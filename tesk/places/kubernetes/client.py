"""The Kubernetes API for the server: few calls, each with a time limit, and never more of them than the cluster likes.

aiohttp carries them since it is there already for the local engine; answers are decoded by the caller, into only the
fields it reads (objects.py). What the API does not do for us now (it is away, our token or a right is missing) is kept
until it does again, so that the server can say why no task can run.
"""

import asyncio
import logging
import re
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import aiohttp
import msgspec

from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.keepalive import keep_alive
from tesk.kubernetes.names import segment
from tesk.kubernetes.objects import Status
from tesk.places.base import PlaceError
from tesk.places.kubernetes.config import Access, tls
from tesk.places.kubernetes.credential import Credential
from tesk.retry import pauses

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
CONNECTIONS: Final = 32
LIVE_SHARE: Final = 0.1
"""The part of the rate that is for the output of running tasks, which users ask for as often as they like: nothing that
a task needs waits for it."""
LIVE_AT_ONCE: Final = 4
TRIES: Final = 5
PAUSES_S: Final = (0.1, 2.0)
MOST_PAUSE_S: Final = 30.0
GROUPS: Final = {"jobs": "batch"}
OPTIONAL: Final = frozenset({"limitranges", "resourcequotas"})
"""Kinds without a right to which everything works, but in a namespace that has some."""
NODES_OWN: Final = "pods/log"
"""A request that the API passes on to a node: when that fails, it is the node that is away."""
MERGE: Final = "application/merge-patch+json"

_status = msgspec.json.Decoder(Status).decode


class Client:
    """One namespace of one cluster. `per_s`: requests a second that may be made in the long run."""

    def __init__(self, access: Access, namespace: str, per_s: float) -> None:
        self.namespace = namespace
        self._access = access
        own_per_s, live_per_s = per_s * (1 - LIVE_SHARE), per_s * LIVE_SHARE
        self._bucket, self._live_bucket = Bucket(own_per_s, 2 * own_per_s), Bucket(live_per_s, max(1, 2 * live_per_s))
        self._live_places = asyncio.Semaphore(LIVE_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._credential: Credential | None = None
        self._away: tuple[float, str] | None = None
        self.lacking: dict[tuple[str, str], str] = {}

    async def open(self) -> None:
        context = await asyncio.to_thread(tls, self._access)
        self._credential = Credential(self._access, context)
        connector = aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS, socket_factory=_socket)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers={"User-Agent": "tesk"}
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def is_away(self) -> bool:
        """True while requests are not answered, or our token is not taken."""
        return self._away is not None

    def trouble(self) -> str | None:
        """Why requests are not answered, or not granted, just now."""
        if self._away is not None:
            since, words = self._away
            return f"{words} (for {time.monotonic() - since:.0f} s)"
        return "; ".join(self.lacking.values()) or None

    async def create(self, kind: str, manifest: Mapping[str, Any]) -> bytes | None:
        """The new object as JSON; None if one of that name exists."""
        try:
            return await self._repeat("create", kind, "POST", self._path(kind), body=manifest)
        except ApiError as error:
            if error.code == 409 and error.reason == "AlreadyExists":
                return None
            raise

    async def get(self, kind: str, name: str) -> bytes | None:
        """The object as JSON; None if there is none."""
        return await self._or_none("get", kind, "GET", self._path(kind, name))

    async def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> bytes | None:
        """The object after a merge patch (RFC 7386); None if there is none."""
        return await self._or_none("patch", kind, "PATCH", self._path(kind, name), body=change)

    async def delete(self, kind: str, name: str, *, policy: str = "Background", grace_s: int | None = None) -> bool:
        """Asks for the object's end; False when it was gone already."""
        options: dict[str, Any] = {"propagationPolicy": policy}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return await self._or_none("delete", kind, "DELETE", self._path(kind, name), body=options) is not None

    async def find(self, kind: str, **query: str) -> bytes:
        """One page of a list as JSON, by labelSelector, fieldSelector, limit, continue."""
        return await self._repeat("list", kind, "GET", self._path(kind), query=query)

    async def logs(self, pod: str, container: str, lines: int, most_bytes: int, timeout_s: float) -> bytes:
        """The last lines of a container's log, and of these the first bytes. Raises ApiError.

        Asked for once, and within a rate and a number of connections of its own.
        """
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(most_bytes)}
        try:
            async with asyncio.timeout(timeout_s), self._live_places:
                await self._live_bucket.take()
                return await self._request("get", "pods/log", "GET", self._path("pods", pod) + "/log", query)
        except TimeoutError:
            raise ApiError(0, "", f"the log of pod {pod} did not come within {timeout_s:g} s") from None

    async def follow(self, pod: str, container: str, lines: int) -> AsyncGenerator[bytes, None]:
        """A container's log from its last lines on until it ends, in pieces; first an empty one. Raises ApiError."""
        query = {"container": container, "tailLines": str(lines), "follow": "true"}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S)
        try:
            async with self._opened().get(
                self._access.server + self._path("pods", pod) + "/log", params=query, headers=await self._headers(),
                timeout=limit,
            ) as answer:  # fmt: skip
                if answer.status != 200:
                    raise self._refused("get", "pods/log", answer, await answer.read())
                yield b""
                async for piece in answer.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, "", f"the log of pod {pod} was cut: {_words(error)}") from None

    async def review(self, verb: str, kind: str) -> bool:
        """Whether we have a right, by the API's own account."""
        resource, _, subresource = kind.partition("/")
        asked = {
            "verb": verb, "group": GROUPS.get(kind, ""), "resource": resource, "subresource": subresource,
            "namespace": self.namespace,
        }  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }  # fmt: skip
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._repeat("create", "selfsubjectaccessreviews", "POST", path, body=review)
        return bool(msgspec.json.decode(answer)["status"].get("allowed"))

    async def version(self) -> tuple[int, int]:
        """The version of Kubernetes. Raises ApiError."""
        found = msgspec.json.decode(await self._repeat("get", "version", "GET", "/version"), type=dict[str, Any])
        major, minor = (re.sub("[^0-9]", "", str(found.get(part, ""))) for part in ("major", "minor"))
        return int(major or 0), int(minor or 0)

    async def watch(self, kind: str, query: dict[str, str], silence_s: float) -> AsyncGenerator[bytes, None]:
        """Lines of a watch until the API ends it, or says nothing for `silence_s`; first an empty one. Raises ApiError.

        One that was open and then cut is an ApiError of code 0 and reason "Cut".
        """
        limit = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=silence_s)
        reason = ""
        try:
            async with self._opened().get(
                self._access.server + self._path(kind), params=query | {"watch": "1"}, headers=await self._headers(),
                timeout=limit, read_bufsize=2**22,
            ) as answer:  # fmt: skip
                if answer.status != 200:
                    raise self._refused("watch", kind, answer, await answer.read())
                self._granted("watch", kind)
                reason = "Cut"
                yield b""
                rest = b""
                async for piece in answer.content.iter_any():
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        yield line
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            words = f"the watch of {kind} was cut: {_words(error)}" if reason else self._unreached(error)
            raise ApiError(0, reason, words) from None

    async def _or_none(self, verb: str, kind: str, method: str, path: str, body: Any = None) -> bytes | None:
        try:
            return await self._repeat(verb, kind, method, path, body=body)
        except ApiError as error:
            if error.code == 404 and not error.is_passing:
                return None
            raise

    async def _repeat(self, verb: str, kind: str, method: str, path: str, query: Any = None, body: Any = None) -> bytes:
        """Tries a few times while the API is away: every call here may be repeated."""
        for tries, pause_s in enumerate(pauses(*PAUSES_S), 1):
            try:
                await self._bucket.take()
                return await self._request(verb, kind, method, path, query, body)
            except ApiError as error:
                if tries == TRIES or not (error.is_away or error.is_race or error.code == 401):
                    raise
                await asyncio.sleep(max(pause_s, error.pause_s))
        raise AssertionError

    async def _request(
        self, verb: str, kind: str, method: str, path: str, query: Any = None, body: Any = None
    ) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = await self._headers()
        if data is not None:
            headers["Content-Type"] = MERGE if method == "PATCH" else "application/json"
        try:
            async with self._opened().request(
                method, self._access.server + path, params=query, data=data, headers=headers
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, "", self._unreached(error)) from None
        if answer.status >= 300:
            raise self._refused(verb, kind, answer, content)
        self._granted(verb, kind)
        return content

    async def _headers(self) -> dict[str, str]:
        try:
            token = await self._credential.token() if self._credential else ""
        except (PlaceError, OSError) as error:
            words = f"no credential for the Kubernetes API: {error}"
            self._is_away(words)
            raise ApiError(0, "", words) from None
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _unreached(self, error: BaseException) -> str:
        words = f"the Kubernetes API at {self._access.server} cannot be reached: {_words(error)}"
        self._is_away(words)
        return words

    def _refused(self, verb: str, kind: str, answer: aiohttp.ClientResponse, content: bytes) -> ApiError:
        code = answer.status
        try:
            status = _status(content)
        except msgspec.MsgspecError:
            status = Status(code, "", content[:500].decode(errors="replace"))
        words = status.message
        if code == 401:
            if self._credential is not None:
                self._credential.forget()
            words = "the Kubernetes API does not take our token (401): it has expired, or is not of this cluster"
        error = ApiError(code, status.reason, words, _pause_s(answer.headers.get("Retry-After", "")))
        if code == 401 or (code >= 500 and kind != NODES_OWN):
            self._is_away(words if code == 401 else f"the Kubernetes API fails: {error}")
        elif error.lacks_right and kind not in OPTIONAL:
            if (verb, kind) not in self.lacking:
                log.error("a right is missing, %s %s: %s", verb, kind, words)
            self.lacking[verb, kind] = f"a right is missing, {verb} {kind}: {words}"
        else:
            self._away = None
        return error

    def _granted(self, verb: str, kind: str) -> None:
        if self._away is not None:
            log.info("the Kubernetes API answers again, after %.0f s", time.monotonic() - self._away[0])
            self._away = None
        if self.lacking.pop((verb, kind), None):
            log.info("our account may %s %s again", verb, kind)

    def _is_away(self, words: str) -> None:
        if self._away is None:
            log.error("%s; trying again", words)
        self._away = (self._away[0] if self._away else time.monotonic(), words)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise PlaceError("the cluster has not been reached yet")
        return self._session

    def _path(self, kind: str, name: str = "") -> str:
        group = GROUPS.get(kind)
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{root}/namespaces/{segment(self.namespace)}/{kind}" + (f"/{segment(name)}" if name else "")


class Bucket:
    """A token bucket: `per_s` in the long run, `most` at once."""

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s, self._most = per_s, most
        self._left = most
        self._at = time.monotonic()

    async def take(self) -> None:
        """Waits for a turn; turns are given in the order of asking. Whoever gives up waiting gives its turn back."""
        moment = time.monotonic()
        self._left = min(self._most, self._left + (moment - self._at) * self._per_s)
        self._at = moment
        self._left -= 1
        if self._left < 0:
            try:
                await asyncio.sleep(-self._left / self._per_s)
            except asyncio.CancelledError:
                self._left += 1
                raise


def _pause_s(retry_after: str) -> float:
    """What a Retry-After header asks for (RFC 9110 §10.2.3, in seconds, as the API writes it)."""
    return min(float(retry_after), MOST_PAUSE_S) if retry_after.isdigit() else 0.0


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    keep_alive(made)
    return made
