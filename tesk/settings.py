"""Every setting of tesk, once: its name, type, default and meaning.

A setting comes from the flag of `tesk serve` that has its name, else from TESK_NAME in the environment, else from
the TOML file named by --config (or TESK_CONFIG), else from its default. docs/settings.md is this table, and a test
holds the two against each other.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    """All settings; lists are comma-separated in the environment."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(description="port to listen on; 0 takes a free one", ge=0, le=65535)] = 8080
    data: Annotated[str, Meta(description="folder for the database and the tasks' scratch volumes")] = (
        "~/.local/share/tesk"
    )
    database_url: Annotated[str, Meta(description="SQLite or PostgreSQL URL; empty: a SQLite file in `data`")] = ""
    engine: Annotated[Literal["local"], Meta(description="where tasks run")] = "local"
    file_roots: Annotated[tuple[str, ...], Meta(description="folders that file: URLs and bare paths may use")] = ()
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="origins of web pages that may call the API; * for any")
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...], Meta(description="further Host names that a loopback server answers to")
    ] = ()
    max_body_bytes: Annotated[int, Meta(description="largest request body", ge=1024)] = 4 * 1024 * 1024
    log_tail_bytes: Annotated[int, Meta(description="bytes kept of each executor's stdout and stderr", ge=0)] = 65536
    prune_after_s: Annotated[float, Meta(description="age at which finished tasks are deleted; 0: never", ge=0)] = 0.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe log entries shown")
    ] = "info"

    default_cpu_cores: Annotated[float, Meta(description="cores of a task that asks for none", ge=0)] = 1.0
    default_ram_gb: Annotated[float, Meta(description="GiB of a task that asks for none", ge=0)] = 1.0
    cpu_cores: Annotated[
        float, Meta(description="cores that tasks may use together; 0: those of the machine", ge=0)
    ] = 0.0
    ram_gb: Annotated[float, Meta(description="GiB that tasks may use together; 0: those of the machine", ge=0)] = 0.0
    max_active_tasks: Annotated[int, Meta(description="tasks that may run at once; 0: as many as fit", ge=0)] = 0

    engine_socket: Annotated[str, Meta(description="socket of the Docker Engine API; empty: found or started")] = ""
    network: Annotated[str, Meta(description="network of executors: bridge, host, none, or one of the engine's")] = (
        "bridge"
    )
    grace_s: Annotated[float, Meta(description="time that a cancelled program has after TERM", ge=0)] = 10.0
    keep_failed: Annotated[bool, Meta(description="keep scratch folders of failed tasks, for debugging")] = False

    missing_outputs: Annotated[
        Literal["warning", "error"], Meta(description="what a declared output that does not exist is")
    ] = "warning"
    transfer_retries: Annotated[int, Meta(description="tries again after a passing transfer error", ge=0)] = 5
    transfer_timeout_s: Annotated[
        float, Meta(description="time without a byte after which a transfer is tried again", gt=0)
    ] = 60.0
    transfer_concurrency: Annotated[int, Meta(description="files moved at once by one filer", ge=1)] = 8

    service_id: Annotated[str, Meta(description="service-info: id, in reverse domain notation")] = "org.ga4gh.tesk"
    service_name: Annotated[str, Meta(description="service-info: name")] = "tesk"
    service_description: Annotated[str, Meta(description="service-info: description")] = "GA4GH Task Execution Service"
    organization_name: Annotated[str, Meta(description="service-info: organization.name")] = "tesk"
    organization_url: Annotated[str, Meta(description="service-info: organization.url")] = "https://www.ga4gh.org"
    storage: Annotated[tuple[str, ...], Meta(description="service-info: further storage locations to list")] = ()


def describe() -> list[tuple[str, Any, str]]:
    """(name, default, meaning) of every setting, in order."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        rows.append((field.name, field.default, field.type.__metadata__[0].description))
    return rows
