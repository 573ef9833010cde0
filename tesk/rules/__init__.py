"""Rules: who may use which storage, volumes and images, and how much of the place (pure).

The operator writes them into one TOML file. Nothing in it is secret: credentials are named, not written. An entry names
users and groups as sign-in does; one that names neither is open to everybody. What counts is the user and the user's
groups when the task is made, and never a role: an admin sees everybody's tasks, but uses nobody's storage.

    unlisted_storage = "open"                 # what no entry covers: "open" (without credentials) or "closed"

    [storage."s3://lab-a"]
    groups = ["lab-a"]
    secret = "lab-a-store"                    # on a cluster; on the local engine credentials = "lab-a.toml"

    [volumes.genomes]
    path = "/refs/genomes"
    claim = "genomes"                         # on a cluster; on the local engine folder = "/srv/genomes"

    [images]
    allow = ["quay.io/biocontainers/*", "registry.example.org/{group}/*"]

    [quotas.groups."*"]                       # "*": every group that has no entry of its own
    running_tasks = 100
    core_hours_per_month = 50_000
"""

from collections.abc import Collection
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from tesk.filer.access import StorageAccess
from tesk.identity import Identity

Names = tuple[str, ...]
AtMost = Annotated[float, Meta(ge=0)]
Whole = Annotated[int, Meta(ge=0)]
OTHERS: Final = "*"
"""Stands for all who have no entry of their own."""


class StorageRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use the URLs at and below a prefix, and what filers get for them.

    `credentials`: a file of credentials, read beside the rules, on the local engine. On a cluster `secret`: a Secret
    whose keys are such files; `claim`: for a `file:` prefix, the claim that is mounted at its path.
    """

    users: Names = ()
    groups: Names = ()
    credentials: str = ""
    secret: str = ""
    claim: str = ""


class VolumeRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reference data that executors find at `path`, read-only: a folder of this machine, or a claim on a cluster."""

    path: str
    users: Names = ()
    groups: Names = ()
    folder: str = ""
    claim: str = ""


class ImageRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images that executors may have; no pattern: all. `{user}` and `{group}` stand for names of the caller's."""

    allow: Names = ()
    digests_only: bool = False


class Quota(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """0: any. What is beyond the first four waits; what is beyond the last two is refused."""

    running_tasks: Whole = 0
    cpu_cores: AtMost = 0
    ram_gb: AtMost = 0
    gpus: Whole = 0
    queued_tasks: Whole = 0
    core_hours_per_month: AtMost = 0


class Quotas(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By name; OTHERS: each who has no entry."""

    users: dict[str, Quota] = {}
    groups: dict[str, Quota] = {}


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `storage`: by URL prefix; the longest that covers a URL counts."""

    unlisted_storage: Literal["open", "closed"] = "open"
    storage: dict[str, StorageRule] = {}
    volumes: dict[str, VolumeRule] = {}
    images: ImageRules = ImageRules()
    quotas: Quotas = Quotas()


class Grants(Struct, frozen=True, omit_defaults=True):
    """What a task was given when it was made: the keys of entries. What it was not given then, it never gets."""

    storage: Names = ()
    volumes: Names = ()


class Granted(Struct, frozen=True):
    """The entries themselves, as a place needs them: those that a task was given, and that are still in the rules.

    `access`: which URLs that opens to its filers.
    """

    storage: dict[str, StorageRule] = {}
    volumes: dict[str, VolumeRule] = {}
    access: StorageAccess = StorageAccess()


NO_RULES: Final = Rules()
NO_GRANTS: Final = Grants()
NOTHING_GRANTED: Final = Granted()


def granted(grants: Grants, rules: Rules) -> Granted:
    if rules == NO_RULES:
        return NOTHING_GRANTED
    storage = {prefix: rules.storage[prefix] for prefix in grants.storage if prefix in rules.storage}
    volumes = {name: rules.volumes[name] for name in grants.volumes if name in rules.volumes}
    closed = tuple(prefix for prefix in rules.storage if prefix not in storage)
    return Granted(storage, volumes, StorageAccess(tuple(storage), closed, unlisted=rules.unlisted_storage == "open"))


def is_open_to(identity: Identity, users: Collection[str], groups: Collection[str]) -> bool:
    """Whether an entry with these names is open to the caller. Nobody who has not signed in is named by any."""
    if not users and not groups:
        return True
    return bool(identity.user) and (identity.user in users or not identity.groups.isdisjoint(groups))
