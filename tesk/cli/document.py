"""Makes a TES document from the flags of `tesk run` (pure, except that it reads local files for `content`).

Inputs are written `URL=PATH`, outputs `PATH=URL`, in the direction of the data. Both halves may hold an equals sign: an
input is split at its last `=/`, an output at its first `=` before a URL or an absolute path.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from tesk.tes import WILDCARDS

MAX_CONTENT_BYTES: Final = 1024 * 1024
_OUTPUT: Final = re.compile(r"(/.*?)=((?:[A-Za-z][A-Za-z0-9+.-]*:)?/.*)", re.DOTALL)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

Document = dict[str, Any]


def input_from(text: str) -> Document:
    """A tesInput from `URL=/path`, or from `@FILE=/path`: the local file's text becomes `content`."""
    source, found, path = text.rpartition("=/")
    if not found or not source:
        raise click.BadParameter(f"{text!r} is not URL=/path/in/container or @LOCAL_FILE=/path/in/container")
    path = f"/{path}"
    if source.startswith("@"):
        return {"path": path, "content": _text(Path(source[1:]))}
    if not source.startswith("/") and not _URL.match(source):
        raise click.BadParameter(
            f"{source!r} is neither a URL nor an absolute path on the server; to send a file of this machine write "
            f"@{source}={path}"
        )
    return {"url": source, "path": path} | _kind(path)


def content_from(text: str) -> Document:
    """A tesInput from `TEXT=/path`."""
    content, found, path = text.rpartition("=/")
    if not found:
        raise click.BadParameter(f"{text!r} is not TEXT=/path/in/container")
    return {"path": f"/{path}", "content": content}


def output_from(text: str) -> Document:
    """A tesOutput from `/path=URL`; a path with wildcards gets the folder before them as its path_prefix."""
    match = _OUTPUT.fullmatch(text)
    if not match:
        raise click.BadParameter(f"{text!r} is not /path/in/container=URL")
    path, url = match.groups()
    wildcard = WILDCARDS.search(path)
    prefix = {"path_prefix": path[: wildcard.start()].rpartition("/")[0] or "/"} if wildcard else {}
    return {"path": path, "url": url} | _kind(path) | prefix


def pairs_from(texts: Iterable[str], *, what: str, bare_ok: bool) -> dict[str, str]:
    """KEY=VALUE texts as a dict; a bare KEY is an empty value where `bare_ok`."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not (equals or bare_ok):
            raise click.BadParameter(f"{what} {text!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs


def task_from(
    *,
    image: str,
    command: Sequence[str],
    inputs: Sequence[Document],
    outputs: Sequence[Document],
    volumes: Sequence[str],
    executor: Document,
    resources: Document,
    tags: dict[str, str],
    name: str | None,
) -> Document:
    """The whole document, without empty fields."""
    return _given(
        {
            "name": name,
            "inputs": list(inputs),
            "outputs": list(outputs),
            "resources": _given(resources),
            "executors": [{"image": image, "command": list(command)} | _given(executor)],
            "volumes": list(volumes),
            "tags": tags,
        }
    )


def _given(fields: Document) -> Document:
    return {key: value for key, value in fields.items() if value not in (None, "", [], {}, False)}


def _kind(path: str) -> Document:
    return {"type": "DIRECTORY"} if path.endswith("/") else {}


def _text(file: Path) -> str:
    try:
        raw = file.expanduser().read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{file}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CONTENT_BYTES:
        raise click.BadParameter(f"{file}: larger than {MAX_CONTENT_BYTES} bytes; put it where the server can fetch it")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise click.BadParameter(f"{file}: not UTF-8 text; put it where the server can fetch it") from None
