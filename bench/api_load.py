"""The load: wrk for rates, one kept connection for the time of a page."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench.api_servers import PREFIX, Running

Query = list[tuple[str, str]]
HERE = Path(__file__).parent
CREATE = HERE / "api_create.lua"
GET = HERE / "api_get.lua"


def creates_per_s(server: Running, connections: int, seconds: float) -> float:
    return _wrk(server, "/tasks", CREATE, connections, seconds, {})


def gets_per_s(server: Running, ids: Path, view: str, connections: int, seconds: float) -> float:
    return _wrk(server, "", GET, connections, seconds, {"IDS": str(ids), "VIEW": view})


def pages_per_s(server: Running, connections: int, seconds: float) -> float:
    return _wrk(server, "", GET, connections, seconds, {"TARGET": f"{PREFIX}/tasks"})


def _wrk(
    server: Running, path: str, script: Path, connections: int, seconds: float, environment: dict[str, str]
) -> float:
    """Answers per second. A single answer that is not 200 is the end of the benchmark."""
    url = server.url + (PREFIX + path if path else "")
    if server.authorization:
        environment = {**environment, "AUTHORIZATION": server.authorization}
    threads = 1 if connections == 1 else 2
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script), url]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    found = re.search(r"^RESULT (\S+) \S+ \S+ \S+ (\d+)$", done.stdout, re.M)
    if found is None or found[2] != "0":
        raise SystemExit(f"wrk on {url}: {found[2] if found else 'no'} bad answers\n{done.stdout}{done.stderr}")
    return float(found[1])


class Lists:
    """One kept connection that asks for pages."""

    def __init__(self, server: Running) -> None:
        parts = urlsplit(server.url)
        self._headers = {"Authorization": server.authorization} if server.authorization else {}
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def __enter__(self) -> "Lists":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def page(self, query: Query) -> tuple[float, bytes]:
        """Seconds, and the answer. Asks once more where the server has closed the connection, which was idle."""
        try:
            return self._page(query)
        except ConnectionError:
            return self._page(query)

    def _page(self, query: Query) -> tuple[float, bytes]:
        began = time.perf_counter()
        self._connection.request("GET", f"{PREFIX}/tasks?{urlencode(query)}", headers=self._headers)
        reply = self._connection.getresponse()
        body = reply.read()
        took = time.perf_counter() - began
        if reply.status != 200:
            raise SystemExit(f"{urlencode(query)}: {reply.status} {body[:500]!r}")
        return took, body

    def count(self, query: Query) -> int:
        """Tasks in the page."""
        return len(json.loads(self.page(query)[1])["tasks"])

    def after(self, count: int) -> Query:
        """The query for the page after the newest `count` tasks."""
        query: Query = []
        for left in range(count, 0, -2000):
            answer = json.loads(self.page([*query, ("page_size", str(min(left, 2000)))])[1])
            query = [("page_token", answer["next_page_token"])]
        return query

    def ids(self, count: int) -> list[str]:
        """The newest ids."""
        found: list[str] = []
        token = ""
        while len(found) < count:
            query = [("page_size", "1000"), *([("page_token", token)] if token else [])]
            answer: dict[str, Any] = json.loads(self.page(query)[1])
            found += [task["id"] for task in answer["tasks"]]
            token = answer.get("next_page_token") or ""
            if not token:
                break
        return found[:count]


def wait_for_quiet() -> None:
    """Lets checkpoints of the run before end."""
    with contextlib.suppress(OSError):
        os.sync()
    time.sleep(0.5)
