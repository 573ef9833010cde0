"""The prototype's HTTP side. PROTO_DATABASE is a SQLite file or a PostgreSQL URL."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.proto import model, store_postgresql, store_sqlite

STATES = (
    *("UNKNOWN", "QUEUED", "INITIALIZING", "RUNNING", "PAUSED", "COMPLETE"),
    *("EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED", "CANCELING"),
)
STATE_BYTES = [state.encode() for state in STATES]
STATE_NUMBERS = {state: number for number, state in enumerate(STATES)}
B32 = "0123456789abcdefghjkmnpqrstvwxyz"
B32_VALUES = {c: i for i, c in enumerate(B32)}
PREFIX = "/ga4gh/tes/v1"
database = os.environ.get("PROTO_DATABASE", "proto.db")
store = store_postgresql.Store(database) if database.startswith("postgres") else store_sqlite.Store(database)


def show(number: int) -> str:
    return "".join([B32[(number >> shift) & 31] for shift in range(60, -1, -5)])


def read(text: str) -> int | None:
    number = 0
    try:
        for c in text:
            number = (number << 5) | B32_VALUES[c]
    except KeyError:
        return None
    return number if len(text) == 13 else None


def stamp(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03d}Z"


def document(number: int, state: int, created: int, body: bytes, logs: bytes | None) -> bytes:
    head = b'{"id":"%b","state":"%b","creation_time":"%b",' % (
        show(number).encode(),
        STATE_BYTES[state],
        stamp(created).encode(),
    )
    if logs:
        return head + b'"logs":' + bytes(logs) + b"," + bytes(body)[1:]
    return head + bytes(body)[1:]


async def created(body: bytes) -> tuple[int, bytes]:
    try:
        task = model.decode(body)
        model.check(task)
    except (msgspec.MsgspecError, model.Invalid) as error:
        return 400, model.encode({"status_code": 400, "msg": str(error)})
    number = store.new_id()
    basic, full = model.split(task)
    tags = [(0, key, value or "", number) for key, value in (task.tags or {}).items()]
    await store.insert((number, 0, 1, task.name, int(time.time() * 1000), basic, full), tags)
    return 200, b'{"id":"%b"}' % show(number).encode()


async def found(task_id: str, view: str) -> tuple[int, bytes]:
    number = read(task_id)
    row = None if number is None else await store.get(number)
    if number is None or not row:
        return 404, b'{"status_code":404,"msg":"no such task"}'
    state, made, basic, full, logs = row
    if view == "MINIMAL":
        return 200, b'{"id":"%b","state":"%b"}' % (task_id.encode(), STATE_BYTES[state])
    return 200, document(number, state, made, full if view == "FULL" and full else basic, logs)


async def listed(query: QueryParams) -> tuple[int, bytes]:
    view = query.get("view", "MINIMAL")
    n = min(max(int(query.get("page_size", 256)), 1), 2048)
    before = read(query["page_token"]) if query.get("page_token") else None
    tags = list(zip(query.getlist("tag_key"), query.getlist("tag_value"), strict=True))
    state = STATE_NUMBERS.get(query.get("state", "")) if "state" in query else None
    rows = await store.page(0, n + 1, before, state, view, tags)
    more = len(rows) > n
    rows = rows[:n]
    if view == "MINIMAL":
        parts = [b'{"id":"%b","state":"%b"}' % (show(i).encode(), STATE_BYTES[s]) for i, s in rows]
    else:
        parts = [document(*row) for row in rows]
    out = b'{"tasks":[' + b",".join(parts) + b"]"
    if more:
        out += b',"next_page_token":"%b"' % show(rows[-1][0]).encode()
    return 200, out + b"}"


def answer(reply: tuple[int, bytes]) -> Response:
    return Response(reply[1], reply[0], media_type="application/json")


async def create(request: Request) -> Response:
    return answer(await created(await request.body()))


async def get(request: Request) -> Response:
    return answer(await found(request.path_params["id"], request.query_params.get("view", "MINIMAL")))


async def list_tasks(request: Request) -> Response:
    return answer(await listed(request.query_params))


async def info(_: Request) -> Response:
    return answer((200, b'{"id":"org.example.tes","name":"proto"}'))


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    await store.start()
    yield


app = Starlette(
    routes=[
        Route(f"{PREFIX}/tasks", list_tasks),
        Route(f"{PREFIX}/tasks", create, methods=["POST"]),
        Route(PREFIX + "/tasks/{id}", get),
        Route(f"{PREFIX}/service-info", info),
    ],
    lifespan=lifespan,
)
