"""Kubernetes objects as far as tesk reads them: what is not named here is skipped, not decoded.

A server reads the status of thousands of pods; full models of them cost a hundred times more time and memory.
"""

import msgspec
from msgspec import Struct

from tesk.kubernetes.bounds import Item


class OwnerReference(Struct, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    uid: str = ""


class Metadata(Struct, frozen=True, rename="camel"):
    """ObjectMeta. Times are RFC 3339 as the API writes them, or None."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: list[OwnerReference] = []


class ListMetadata(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Condition(Struct, frozen=True):
    """A condition of a pod or a Job."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class WaitingContainer(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class Running(Struct, frozen=True, rename="camel"):
    started_at: str | None = None


class Terminated(Struct, frozen=True, rename="camel"):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class ContainerStates(Struct, frozen=True):
    """The states of a container (ContainerState); one of them is set."""

    waiting: WaitingContainer | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True, rename="camel"):
    name: str
    image: str = ""
    state: ContainerStates = ContainerStates()
    last_state: ContainerStates = ContainerStates()


class PodStatus(Struct, frozen=True, rename="camel"):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []


class ContainerResources(Struct, frozen=True):
    limits: dict[str, str] = {}


class Container(Struct, frozen=True):
    name: str
    image: str = ""
    resources: ContainerResources = ContainerResources()


class PodSpec(Struct, frozen=True, rename="camel"):
    node_name: str = ""
    containers: list[Container] = []


class Pod(Struct, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class JobStatus(Struct, frozen=True):
    active: int = 0
    failed: int = 0
    conditions: list[Condition] = []


class Job(Struct, frozen=True):
    metadata: Metadata
    status: JobStatus = JobStatus()


class ConfigMap(Struct, frozen=True, rename="camel"):
    metadata: Metadata
    binary_data: dict[str, bytes] = {}


class LimitRangeSpec(Struct, frozen=True):
    limits: tuple[Item, ...] = ()


class LimitRange(Struct, frozen=True):
    metadata: Metadata
    spec: LimitRangeSpec = LimitRangeSpec()


class ScopeRequirement(Struct, frozen=True, rename="camel"):
    scope_name: str = ""


class ScopeSelector(Struct, frozen=True, rename="camel"):
    match_expressions: list[ScopeRequirement] = []


class ResourceQuotaSpec(Struct, frozen=True, rename="camel"):
    hard: dict[str, str] = {}
    scopes: list[str] = []
    scope_selector: ScopeSelector = ScopeSelector()


class ResourceQuota(Struct, frozen=True):
    metadata: Metadata
    spec: ResourceQuotaSpec = ResourceQuotaSpec()


class Event(Struct, frozen=True, rename="camel"):
    metadata: Metadata
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    last_timestamp: str | None = None
    event_time: str | None = None


class JobList(Struct, frozen=True):
    metadata: ListMetadata
    items: list[Job] = []


class PodList(Struct, frozen=True):
    metadata: ListMetadata
    items: list[Pod] = []


class ConfigMapList(Struct, frozen=True):
    metadata: ListMetadata
    items: list[ConfigMap] = []


class EventList(Struct, frozen=True):
    metadata: ListMetadata
    items: list[Event] = []


class WatchEvent(Struct, frozen=True):
    """A line of a watch; `object` is decoded by its kind, or as Status where the type is ERROR."""

    type: str
    object: msgspec.Raw


class Status(Struct, frozen=True):
    """The API's answer to what it refuses."""

    code: int = 0
    reason: str = ""
    message: str = ""
