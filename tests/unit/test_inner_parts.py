"""uvicorn and aiodocker, whose inner parts tesk builds on: a new version that moves one of them is told by name.

tesk/server/connection.py replaces methods of uvicorn's connection, and answers without its request cycle.
tesk/places/local/containers.py replaces two methods of aiodocker's client. A new version of either may change what
those methods did, and no test of tesk's own would notice until a client or an engine does something rare.
"""

import ast
import asyncio
import hashlib
import inspect
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiodocker
import aiohttp
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import tesk.server.connection
from tesk.places.local.containers import EngineAway, _Docker

READ: Final[list[tuple[Callable[..., Any], str, str]]] = [
    (
        HttpToolsProtocol.connection_made,
        "52a70c678525",
        "HttpConnection.connection_made calls it, then starts the one timer",
    ),
    (HttpToolsProtocol.connection_lost, "8a5a84898dab", "HttpConnection.connection_lost calls it last"),
    (HttpToolsProtocol.data_received, "8583b7d501b5", "HttpConnection.data_received and _parse stand in its place"),
    (
        HttpToolsProtocol.on_message_begin,
        "4f7bac281585",
        "_head_without_upgrade parses a head twice, so it is called twice",
    ),
    (
        HttpToolsProtocol.on_headers_complete,
        "f5d7f89383b9",
        "HttpConnection.on_headers_complete adds extensions to its scope",
    ),
    (
        HttpToolsProtocol.on_message_complete,
        "4ce97e51d988",
        "HttpConnection.on_message_complete leaves it out before an upgrade",
    ),
    (HttpToolsProtocol.on_response_complete, "3b835da51ff0", "HttpConnection.on_response_complete stands in its place"),
    (
        HttpToolsProtocol.shutdown,
        "7fa717a61d60",
        "it ends idle connections, which HttpConnection._look_at_idle watches",
    ),
    (RequestResponseCycle.run_asgi, "0295583c4f12", "it takes an answer for sent once response_complete is set"),
    (RequestResponseCycle.send, "e4355b337add", "HttpConnection._answer does the same for a whole answer in one call"),
    (RequestResponseCycle.receive, "5c6d69bd5c2e", "body.py reads bodies by it, before HttpConnection._answer"),
    (uvicorn.Server.capture_signals, "5c21d816e7ca", "Server.capture_signals (server/run.py) stands in its place"),
    (aiodocker.Docker._canonicalize_url, "18d60c717d6b", "_Docker._canonicalize_url stands in its place"),
    (aiodocker.Docker._check_version, "1b828ed6e826", "_Docker._check_version stands in its place"),
    (aiodocker.Docker._query, "90749af03645", "Containers.run and make_directory call it"),
    (aiodocker.Docker._do_query, "c79bfd9876d8", "_Docker._do_query tells its error 900 from an answer of the engine"),
    (aiodocker.Docker.close, "ca613adfdcb9", "Containers.close closes the connector after it"),
]
"""What was read when tesk was built on it, the fingerprint of its source then, and what relies on it."""


def name(function: Callable[..., Any]) -> str:
    return f"{function.__module__.partition('.')[0]}:{function.__qualname__}"


def fingerprint(function: Callable[..., Any]) -> str:
    """Of the source without its docstrings, comments and layout."""
    source = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    for node in ast.walk(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(ast.unparse(source).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("function", "known", "use"), READ, ids=[name(function) for function, *_ in READ])
def test_an_inner_part_is_as_it_was_when_tesk_was_built_on_it(
    function: Callable[..., Any], known: str, use: str
) -> None:
    found = fingerprint(function)
    assert found == known, (
        f"{name(function)} has changed. Tesk relies on it: {use}. Read what changed, correct that place where it has "
        f"to follow, run tests/api/test_wire.py or tests/engines, then write {found!r} into READ"
    )


@pytest.fixture
async def connection() -> Any:
    """uvicorn's own connection in the middle of a request."""
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    config = uvicorn.Config(app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None)
    state = ServerState()
    client, server = socket.socketpair()
    transport, protocol = await loop.connect_accepted_socket(
        lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), server
    )
    client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    async with asyncio.timeout(300):
        while protocol.cycle is None:  # noqa: ASYNC110 - nothing tells when the parser has seen the head
            await asyncio.sleep(0.01)
    yield protocol
    for task in list(protocol.tasks):
        task.cancel()
    transport.close()
    client.close()


def attributes(owner: str) -> Iterator[str]:
    """What connection.py reads or sets of a variable of that name."""
    for node in ast.walk(ast.parse(Path(tesk.server.connection.__file__).read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner:
            yield node.attr


async def test_uvicorn_has_every_attribute_that_our_connection_uses(connection: HttpToolsProtocol) -> None:
    own = {each for each in attributes("self") if each.startswith("_")}
    missing = [f"HttpToolsProtocol.{each}" for each in set(attributes("self")) - own if not hasattr(connection, each)]
    missing += [f"RequestResponseCycle.{each}" for each in attributes("cycle") if not hasattr(connection.cycle, each)]
    assert not missing, "tesk/server/connection.py uses what this uvicorn does not have: look for their new names"


def test_no_private_attribute_of_our_connection_is_one_of_uvicorns(connection: HttpToolsProtocol) -> None:
    ours = {each for each in vars(tesk.server.connection.HttpConnection) if each.startswith("_") and each[1] != "_"}
    both = (ours | {each for each in attributes("self") if each.startswith("_")}) & set(dir(connection))
    assert not both, "uvicorn's connection has come to use a name of ours: rename it in tesk/server/connection.py"


async def test_an_engine_that_is_away_is_told_whatever_is_asked_of_it(tmp_path: Path) -> None:
    connector = aiohttp.UnixConnector(str(tmp_path / "nothing.sock"))
    docker = _Docker(url="unix://localhost", connector=connector)
    try:
        for asked in (
            docker.version(),
            docker.images.inspect("alpine"),
            docker.containers.create({"Image": "alpine"}, name="a"),
            docker.containers.container("a").show(),
            docker.containers.container("a").start(),
            docker.containers.container("a").stop(),
            docker.containers.container("a").delete(force=True),
            docker.containers.list(all="true"),
        ):
            with pytest.raises(EngineAway):
                await asked
    finally:
        await docker.close()
        assert not connector.closed, "aiodocker closes connectors that are given to it: leave it to aiodocker"
        await connector.close()
