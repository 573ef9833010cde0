"""TES 1.1 documents: what a client sends, what it gets back, and which requests are refused.

One set of structs serves the server, the taskmaster and the filer. Reading is tolerant where real clients need
it (nulls, unknown keys, server-owned fields are dropped) and strict where a task could not run as written: each
refusal names the field and the reason, so that it can be answered with 400 before anything is stored.

Source: GA4GH TES 1.1.0, openapi/task_execution_service.openapi.yaml.
"""

import enum
import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tesk import images, patterns, schemes, urls

MAX_STRING: Final = 4096
MAX_ITEMS: Final = 1000
WILDCARDS: Final = patterns.WILDCARDS
MAX_PATH_BYTES: Final = 3840
"""The kernel takes 4096 bytes, of which the folder of the server that a path lies in needs some."""
KERNEL: Final = ("/proc", "/sys")
"""Where no container engine mounts anything."""
OURS: Final = "/.tesk"
_PLAIN_PATH: Final = re.compile(r"(?!/(?:\.tesk|proc|sys)(?:/|$))(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.,+=@ -]{1,63})+/?")
"""Paths without any problem (as long as they are short), recognised at once; most are such."""
_PLAIN_BYTES: Final = 1024
_DEVICES: Final = ("/dev/", "/proc/", "/sys/")
_PLAIN_URL: Final = re.compile(
    rf"(?!file:)(?:{'|'.join(schemes.WRITABLE)})://[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9_.,+=@/ -]*"
)


class State(enum.IntEnum):
    """TES states; the numbers are what the store keeps and never change."""

    UNKNOWN = 0
    QUEUED = 1
    INITIALIZING = 2
    RUNNING = 3
    PAUSED = 4
    COMPLETE = 5
    EXECUTOR_ERROR = 6
    SYSTEM_ERROR = 7
    CANCELED = 8
    PREEMPTED = 9
    CANCELING = 10

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL: Final = frozenset({State.COMPLETE, State.EXECUTOR_ERROR, State.SYSTEM_ERROR, State.CANCELED, State.PREEMPTED})

NEXT: Final[dict[State, frozenset[State]]] = {
    State.UNKNOWN: frozenset(set(State) - {State.UNKNOWN}),
    State.QUEUED: frozenset({State.INITIALIZING, State.RUNNING, State.CANCELING}) | TERMINAL,
    State.INITIALIZING: frozenset({State.RUNNING, State.CANCELING}) | TERMINAL,
    State.RUNNING: frozenset({State.CANCELING}) | TERMINAL,
    State.PAUSED: frozenset({State.RUNNING, State.CANCELING}) | TERMINAL,
    State.CANCELING: frozenset({State.CANCELED}),
    **{state: frozenset() for state in TERMINAL},
}
"""State machine: from each state, the states that may follow. Terminal states have none."""


class FileType(enum.Enum):
    FILE = "FILE"
    DIRECTORY = "DIRECTORY"


Text = Annotated[str, Meta(max_length=MAX_STRING)]


class Input(Struct, omit_defaults=True):
    """tesInput. `type` stays unset when the client left it out: the filer finds the real one."""

    path: Text
    name: Text | None = None
    description: str | None = None
    url: Text | None = None
    type: FileType | None = None
    content: str | None = None
    streamable: bool | None = None


class Output(Struct, omit_defaults=True):
    """tesOutput."""

    path: Text
    url: Text
    name: Text | None = None
    description: str | None = None
    path_prefix: Text | None = None
    type: FileType | None = None


class Executor(Struct, omit_defaults=True):
    """tesExecutor."""

    image: Annotated[str, Meta(min_length=1, max_length=1024)]
    command: Annotated[list[str], Meta(min_length=1)]
    workdir: Text | None = None
    stdin: Text | None = None
    stdout: Text | None = None
    stderr: Text | None = None
    env: dict[str, str | None] | None = None
    ignore_error: bool | None = None


class Resources(Struct, omit_defaults=True):
    """tesResources. Clients mean cores (fractions are accepted) and GiB."""

    cpu_cores: Annotated[int, Meta(ge=0, le=1_000_000)] | Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    preemptible: bool | None = None
    ram_gb: Annotated[int, Meta(ge=0, le=10_000_000)] | Annotated[float, Meta(ge=0, le=10_000_000)] | None = None
    disk_gb: Annotated[int, Meta(ge=0, le=1_000_000_000)] | Annotated[float, Meta(ge=0, le=1_000_000_000)] | None = None
    zones: Annotated[list[str], Meta(max_length=MAX_ITEMS)] | str | None = None
    backend_parameters: Annotated[dict[str, str | None], Meta(max_length=MAX_ITEMS)] | None = None
    backend_parameters_strict: bool | None = None


class Task(Struct, omit_defaults=True):
    """tesTask as a client writes it. Server-owned fields (id, state, logs, creation_time) are not read."""

    executors: Annotated[list[Executor], Meta(min_length=1, max_length=MAX_ITEMS)]
    name: Text | None = None
    description: str | None = None
    inputs: list[Input] | None = None
    outputs: list[Output] | None = None
    resources: Resources | None = None
    volumes: Annotated[list[Text], Meta(max_length=MAX_ITEMS)] | None = None
    tags: Annotated[dict[str, str | None], Meta(max_length=MAX_ITEMS)] | None = None


class ExecutorLog(Struct):
    """tesExecutorLog. `exit_code` is always present: clients read it as an int (-1 while it runs)."""

    exit_code: int
    start_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    stdout: str | UnsetType = UNSET
    stderr: str | UnsetType = UNSET


class OutputFileLog(Struct):
    """tesOutputFileLog. `size_bytes` is a string, as the specification wants."""

    url: str
    path: str
    size_bytes: str


class TaskLog(Struct):
    """tesTaskLog: one attempt at running the task."""

    logs: list[ExecutorLog] = msgspec.field(default_factory=list)
    outputs: list[OutputFileLog] = msgspec.field(default_factory=list)
    start_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    system_logs: list[str] | UnsetType = UNSET


class FileTypes(Struct, frozen=True, omit_defaults=True):
    """What a task's inputs and outputs turned out to be: one letter for each, in their order, as far as it is known.

    F: a file, D: a directory, ?: not known, or a pattern that has matched both.
    """

    inputs: str = ""
    outputs: str = ""


FILE_TYPES: Final = {"F": FileType.FILE, "D": FileType.DIRECTORY}


class InvalidTask(ValueError):
    """A task document that is refused: `field` (as `executors[0].image`) and `reason`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


Problem = tuple[str, str]
encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Task).decode
_AT: Final = re.compile(r"^(.*) - at `(key in )?\$\.?(.*)`$", re.DOTALL)
_STEP: Final = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


def decode(body: bytes) -> Task:
    """A task from JSON, with nulls dropped; checked for types only.

    Raises InvalidTask. Use `parse` for what a client sends, this for what the store holds.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), body) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"not JSON: {error}" if body.strip() else "empty: send the task as JSON"
        raise InvalidTask("", f"the body is {what}") from None


def _invalid(error: str, body: bytes) -> InvalidTask:
    """msgspec's "Expected `str`, got `int` - at `$.executors[0].image`" as field and reason."""
    match = _AT.match(error)
    reason, _, field = match.groups() if match else (error, None, "")
    if missing := _MISSING.fullmatch(reason):
        return InvalidTask(f"{field}.{missing[1]}".lstrip("."), "required, but missing")
    if reason.startswith("Invalid enum value"):
        reason = f"{reason}; it is one of {', '.join(kind.value for kind in FileType)}"
    if field.endswith("[...]"):
        field = field.removesuffix("[...]")
        field += _key_without_text(body, field)
    return InvalidTask(field, reason)


def _key_without_text(body: bytes, field: str) -> str:
    """The key of the first value in the map `field` that is no text, which msgspec does not name; else nothing."""
    try:
        found = msgspec.json.decode(body)
        for name, index in _STEP.findall(field):
            found = found[name] if name else found[int(index)]
        return next(f".{key[:100]}" for key, value in found.items() if not isinstance(value, str | None))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError, StopIteration):
        return ""


def parse(body: bytes, *, parameters: Collection[str] = ()) -> tuple[Task, list[str]]:
    """What a client posts: the task as it will be kept, and warnings for its system logs.

    `parameters` are the supported backend parameters (matched without regard to case). Raises InvalidTask.
    """
    task = decode(body)
    strict = bool(task.resources and task.resources.backend_parameters_strict)
    _drop_unset(task)
    for field, reason in _problems(task):
        raise InvalidTask(field, reason)
    return task, _settle_parameters(task, parameters, strict=strict)


def _drop_unset(task: Task) -> None:
    """Null, empty and default values are what was not set: clients send them, and fail when they get them back."""
    _drop_false_values(task, "name", "description", "inputs", "outputs", "volumes")
    task.tags = _without_nulls(task.tags)
    for executor in task.executors:
        _drop_false_values(executor, "workdir", "stdin", "stdout", "stderr", "ignore_error")
        executor.env = _without_nulls(executor.env)
        executor.image = executor.image.removeprefix(images.TRANSPORT)
    for given in task.inputs or ():
        _drop_false_values(given, "name", "description", "url", "streamable")
        if given.url and not given.content:
            given.content = None
    for output in task.outputs or ():
        _drop_false_values(output, "name", "description", "path_prefix")
    if (resources := task.resources) is not None:
        if isinstance(resources.zones, str):
            resources.zones = [resources.zones] if resources.zones else None
        _drop_false_values(resources, "zones", "preemptible", "backend_parameters_strict")
        resources.backend_parameters = _without_nulls(resources.backend_parameters)
        if resources == Resources():
            task.resources = None


def _drop_false_values(document: Struct, *names: str) -> None:
    for name in names:
        if not getattr(document, name):
            setattr(document, name, None)


def _without_nulls(given: dict[str, str | None] | None) -> dict[str, str | None] | None:
    if not given or None not in given.values():
        return given or None
    return {key: value for key, value in given.items() if value is not None} or None


def _settle_parameters(task: Task, supported: Collection[str], *, strict: bool) -> list[str]:
    """Drops unsupported backend parameters with a warning each, or refuses them under `strict`."""
    resources = task.resources
    if resources is None or not resources.backend_parameters:
        return []
    known = {name.lower() for name in supported}
    unknown = sorted(key for key in resources.backend_parameters if key.lower() not in known)
    if unknown and strict:
        field = f"resources.backend_parameters.{unknown[0]}"
        names = ", ".join(sorted(supported)) or "none"
        raise InvalidTask(field, f"not supported, and backend_parameters_strict is set; supported: {names}")
    for key in unknown:
        del resources.backend_parameters[key]
    resources.backend_parameters = resources.backend_parameters or None
    if resources == Resources():
        task.resources = None
    return [f"warning: backend parameter {key!r} is not supported and was ignored" for key in unknown]


def _problems(task: Task) -> Iterator[Problem]:
    """What the types cannot say, first problem first."""
    for n, given in enumerate(task.inputs or ()):
        yield from _input_problems(f"inputs[{n}]", given)
    for n, output in enumerate(task.outputs or ()):
        yield from _output_problems(f"outputs[{n}]", output)
    yield from _pattern_problems(task)
    for n, volume in enumerate(task.volumes or ()):
        if not _is_plain_path(volume):
            yield from _mounted_problems(f"volumes[{n}]", volume)
            yield from _kernel_problems(f"volumes[{n}]", volume)
    for n, executor in enumerate(task.executors):
        yield from _executor_problems(f"executors[{n}]", executor)
    for key, value in (task.tags or {}).items():
        if "\0" in key or "\0" in (value or ""):
            yield "tags", f"{key!r} holds a NUL character"
    for name in ("name", "description"):
        if "\0" in (getattr(task, name) or ""):
            yield name, "holds a NUL character"
    yield from _collisions(task)


def _is_plain_path(path: str) -> bool:
    return len(path) <= _PLAIN_BYTES and _PLAIN_PATH.fullmatch(path) is not None


def _is_plain_file(path: str) -> bool:
    return _is_plain_path(path) and not path.endswith("/")


def _path_problems(field: str, path: str) -> Iterator[Problem]:
    if not path.startswith("/"):
        yield field, f"{urls.redact(path)!r} is not an absolute path"
    elif ".." in path.split("/"):
        yield field, f"{path!r} must not hold '..'"
    elif "\0" in path:
        yield field, "a path cannot hold a NUL character"
    elif any(len(part.encode()) > 255 for part in path.split("/")):
        yield field, "a path component is longer than 255 bytes"
    elif len(path.encode()) > MAX_PATH_BYTES:
        yield field, f"a path is longer than {MAX_PATH_BYTES} bytes"
    elif _is_below(normal(path), (OURS,)):
        yield field, f"{OURS} is where this server keeps what is its own"


def _mounted_problems(field: str, path: str) -> Iterator[Problem]:
    yield from _path_problems(field, path)
    if normal(path) == "/":
        yield field, "the root of the file system cannot be mounted"


def _kernel_problems(field: str, path: str) -> Iterator[Problem]:
    if _is_below(normal(path), KERNEL):
        yield field, "nothing can be mounted there: it is the kernel's"


def _file_problems(field: str, path: str) -> Iterator[Problem]:
    yield from _path_problems(field, path)
    if path.rpartition("/")[2] in ("", "."):
        yield field, f"{path!r} is a directory's path, not a file's"


def normal(path: str) -> str:
    """The path without doubled or trailing slashes and dots."""
    is_normal = path.startswith("/") and "//" not in path and "/./" not in path and "/../" not in path
    if is_normal and not path.endswith(("/", "/.", "/..")):
        return path
    return "/" + posixpath.normpath(path).strip("/")


def _is_below(path: str, folders: Collection[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _collisions(task: Task) -> Iterator[Problem]:
    """What would have to be a file and a directory at once: `content` and the streams of executors are files."""
    contents = [given.path for given in task.inputs or () if given.content]
    streams = [path for each in task.executors for path in (each.stdin, each.stdout, each.stderr) if path]
    files = {normal(path) for path in (*contents, *streams) if not path.startswith(_DEVICES)}
    if not _may_collide(task, streams, files):
        return
    named = _named_files(task)
    for field, path in _directories(task):
        if path in files:
            yield field, f"{path!r} is a directory here, and a file in {named[path]}"
    for field, path in named_paths(task):
        for above in _above(normal(path)):
            if above in files:
                yield field, f"{path!r} lies below {above!r}, which is a file in {named[above]}"


def _may_collide(task: Task, streams: list[str], files: set[str]) -> bool:
    """False when no file is, or lies above, what has to be a directory: for most tasks that settles it."""
    found = {path.rpartition("/")[0] for path in streams}
    found.update(task.volumes or (), [executor.workdir for executor in task.executors if executor.workdir])
    for given in task.inputs or ():
        found.add(given.path if given.type is FileType.DIRECTORY else given.path.rpartition("/")[0])
    for output in task.outputs or ():
        found.add(output.path.rpartition("/")[0])
    found.discard("")
    for path in {*map(normal, found)}:
        while path:
            if path in files:
                return True
            path = path.rpartition("/")[0]
    return False


def _streams(task: Task) -> Iterator[tuple[str, str]]:
    for n, executor in enumerate(task.executors):
        for name in ("stdin", "stdout", "stderr"):
            if path := getattr(executor, name):
                yield f"executors[{n}].{name}", path


def _named_files(task: Task) -> dict[str, str]:
    """The field of each path that is a file."""
    given = ((f"inputs[{n}].path", each.path) for n, each in enumerate(task.inputs or ()) if each.content)
    return {normal(path): field for field, path in (*given, *_streams(task))}


def _above(path: str) -> Iterator[str]:
    """All directories above a path but the root, nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def _directories(task: Task) -> Iterator[tuple[str, str]]:
    for n, volume in enumerate(task.volumes or ()):
        yield f"volumes[{n}]", normal(volume)
    for n, executor in enumerate(task.executors):
        if executor.workdir:
            yield f"executors[{n}].workdir", normal(executor.workdir)
    for n, given in enumerate(task.inputs or ()):
        if given.type is FileType.DIRECTORY:
            yield f"inputs[{n}].path", normal(given.path)


def named_paths(task: Task) -> Iterator[tuple[str, str]]:
    """The task's paths, each with its field; of an output with wildcards what comes before the end of the first."""
    yield from _streams(task)
    yield from _directories(task)
    for n, given in enumerate(task.inputs or ()):
        yield f"inputs[{n}].path", given.path
    for n, output in enumerate(task.outputs or ()):
        wildcard = WILDCARDS.search(output.path)
        yield f"outputs[{n}].path", output.path[: wildcard.end()] if wildcard else output.path


def _input_problems(field: str, given: Input) -> Iterator[Problem]:
    if not _is_plain_path(given.path):
        yield from _mounted_problems(f"{field}.path", given.path)
        yield from _kernel_problems(f"{field}.path", given.path)
    if given.content:
        if given.type is FileType.DIRECTORY:
            yield f"{field}.type", "content makes a FILE, not a DIRECTORY"
        if not _is_plain_file(given.path):
            yield from _file_problems(f"{field}.path", given.path)
    elif given.url:
        if not _PLAIN_URL.fullmatch(given.url):
            yield from urls.problems(f"{field}.url", given.url, schemes.READABLE)
    elif given.content is None:
        yield field, "an input needs url or content"


def _output_problems(field: str, output: Output) -> Iterator[Problem]:
    if not output.url:
        yield f"{field}.url", "an output needs a url"
    elif not _PLAIN_URL.fullmatch(output.url):
        yield from urls.problems(f"{field}.url", output.url, schemes.WRITABLE)
    if _is_plain_path(output.path):
        return
    yield from _mounted_problems(f"{field}.path", output.path)
    if not WILDCARDS.search(output.path):
        return
    prefix = output.path_prefix
    if not prefix:
        if patterns.implied_prefix(output.path, output.url) is None:
            yield f"{field}.path_prefix", "needed, since path holds wildcards"
    elif WILDCARDS.search(prefix):
        yield f"{field}.path_prefix", "must not hold wildcards"
    elif not _is_prefix(prefix, output.path):
        yield f"{field}.path_prefix", f"{prefix!r} is not a prefix of {output.path!r}"


def _pattern_problems(task: Task) -> Iterator[Problem]:
    """Patterns are bounded in number before they are made."""
    total = 0
    for n, output in enumerate(task.outputs or ()):
        if not patterns.is_several(output.path):
            continue
        try:
            total += len(patterns.patterns(output.path))
        except patterns.TooManyPatterns:
            yield f"outputs[{n}].path", f"stands for more than {patterns.MAX_PATTERNS} patterns"
        if total > patterns.MAX_IN_TASK:
            yield f"outputs[{n}].path", f"with it the outputs stand for more than {patterns.MAX_IN_TASK:,} patterns"


def _is_prefix(prefix: str, path: str) -> bool:
    folder = posixpath.normpath(prefix).rstrip("/") + "/"
    return folder.startswith("/") and (posixpath.normpath(path) + "/").startswith(folder)


def _executor_problems(field: str, executor: Executor) -> Iterator[Problem]:
    if executor.workdir is not None and not _is_plain_path(executor.workdir):
        yield from _path_problems(f"{field}.workdir", executor.workdir)
    for name in ("stdin", "stdout", "stderr"):
        path = getattr(executor, name)
        if path is not None and not _is_plain_file(path):
            yield from _file_problems(f"{field}.{name}", path)
    if reason := images.problem(executor.image):
        yield f"{field}.image", reason
    for n, argument in enumerate(executor.command):
        if "\0" in argument:
            yield f"{field}.command[{n}]", "an argument cannot hold a NUL character"
    if not executor.command[0]:
        yield f"{field}.command[0]", "the program's name is empty"
    for key, value in (executor.env or {}).items():
        if not key or "=" in key or "\0" in key or "\0" in (value or ""):
            yield f"{field}.env", f"{key!r} cannot be an environment variable"


def fill_in_types(task: Task, types: FileTypes) -> bool:
    """Gives inputs and outputs without a type the one that they turned out to have; whether there were such."""
    found: list[tuple[Input | Output, str]] = [*zip(task.inputs or (), types.inputs, strict=False)]
    found += zip(task.outputs or (), types.outputs, strict=False)
    news = [(each, FILE_TYPES[letter]) for each, letter in found if each.type is None and letter in FILE_TYPES]
    for each, file_type in news:
        each.type = file_type
    return bool(news)


def documents(task: Task) -> tuple[bytes, bytes | None]:
    """The BASIC document (no input's content) as JSON, and the FULL one where it differs."""
    inputs = task.inputs or ()
    contents = [given.content for given in inputs]
    full = encode(task)
    if contents.count(None) == len(contents):
        return full, None
    for given in inputs:
        given.content = None
    basic = encode(task)
    for given, content in zip(inputs, contents, strict=True):
        given.content = content
    return basic, full
