"""The task document as msgspec structs: just enough validation to be fair."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, json

AbsPath = Annotated[str, Meta(pattern=r"^/", max_length=4096)]
Name = Annotated[str, Meta(max_length=1024)]


class Input(Struct, omit_defaults=True):
    path: AbsPath
    name: Name | None = None
    description: str | None = None
    url: str | None = None
    type: Literal["FILE", "DIRECTORY"] | None = None
    content: Annotated[str, Meta(max_length=131072)] | None = None
    streamable: bool | None = None


class Output(Struct, omit_defaults=True):
    path: AbsPath
    url: str
    name: Name | None = None
    description: str | None = None
    path_prefix: str | None = None
    type: Literal["FILE", "DIRECTORY"] | None = None


class Executor(Struct, omit_defaults=True):
    image: Annotated[str, Meta(min_length=1, max_length=1024)]
    command: Annotated[list[str], Meta(min_length=1)]
    workdir: AbsPath | None = None
    stdin: AbsPath | None = None
    stdout: AbsPath | None = None
    stderr: AbsPath | None = None
    env: dict[str, str] | None = None
    ignore_error: bool | None = None


class Resources(Struct, omit_defaults=True):
    cpu_cores: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    preemptible: bool | None = None
    ram_gb: Annotated[float, Meta(ge=0)] | None = None
    disk_gb: Annotated[float, Meta(ge=0)] | None = None
    zones: list[str] | None = None
    backend_parameters: dict[str, str] | None = None
    backend_parameters_strict: bool | None = None


class Task(Struct, omit_defaults=True):
    executors: Annotated[list[Executor], Meta(min_length=1)]
    name: Name | None = None
    description: str | None = None
    inputs: list[Input] | None = None
    outputs: list[Output] | None = None
    resources: Resources | None = None
    volumes: list[AbsPath] | None = None
    tags: dict[str, str | None] | None = None


decode = json.Decoder(Task).decode
encode = json.Encoder().encode


class Invalid(ValueError):
    """A task that is refused."""


def check(task: Task) -> None:
    """What the types cannot say."""
    for n, given in enumerate(task.inputs or ()):
        if not given.url and given.content is None:
            raise Invalid(f"inputs[{n}]: url or content is needed")
        if "/../" in given.path or given.path.endswith("/.."):
            raise Invalid(f"inputs[{n}].path: '..' is not allowed")
    for n, output in enumerate(task.outputs or ()):
        if "/../" in output.path or output.path.endswith("/.."):
            raise Invalid(f"outputs[{n}].path: '..' is not allowed")
        if any(c in output.path for c in "*?[") and not output.path_prefix:
            raise Invalid(f"outputs[{n}]: wildcards need path_prefix")


def split(task: Task) -> tuple[bytes, bytes | None]:
    """(basic, full or None): the BASIC document, and the FULL one where it differs (inline content)."""
    full = encode(task)
    inputs = task.inputs or []
    if not any(given.content is not None for given in inputs):
        return full, None
    kept = [given.content for given in inputs]
    for given in inputs:
        given.content = None
    basic = encode(task)
    for given, content in zip(inputs, kept, strict=True):
        given.content = content
    return basic, full
