"""The operator's settings as every taskmaster gets them (pure)."""

import re
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from tesk.filer.plan import FilerSettings
from tesk.kubernetes.task_settings import Mount, TaskSettings, Volume
from tesk.places.base import PlaceError
from tesk.rules import NOTHING_GRANTED, Granted
from tesk.rules.filing import filer_settings, folder_of
from tesk.settings import Settings

STORAGE: Final = "/tesk/storage"
"""The folder in which filers find the Secrets of storage, each under its name."""
LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def task_settings(settings: Settings, namespace: str) -> TaskSettings:
    """The settings for tasks in a namespace. Raises PlaceError for one that cannot be used."""
    if not LABEL.fullmatch(settings.instance):
        raise PlaceError(f"instance: {settings.instance!r}: expected a label's value: letters, digits, '-', '_', '.'")
    if not settings.image:
        raise PlaceError("image: needed on a cluster: the image of this product")
    found = {name: getattr(settings, name) for name in TaskSettings.__struct_fields__ if hasattr(settings, name)}
    found |= {name: convert(name, found[name]) for name, convert in CONVERTED.items()}
    found |= {"namespace": namespace, "filer": FilerSettings.of(settings)}
    return TaskSettings(**found)


def with_granted(settings: TaskSettings, granted: Granted) -> TaskSettings:
    """The settings for a task that was given these entries: no filer of another task has their Secrets and claims.

    The path of a Secret depends on its name alone: the pod of a later attempt finds in the task's own Secret the paths
    that held when the first was made.
    """
    if granted == NOTHING_GRANTED:
        return settings
    credentials = {prefix: f"{STORAGE}/{rule.secret}" for prefix, rule in granted.storage.items() if rule.secret}
    secrets = [
        Mount(f"{STORAGE}/{rule.secret}", secret=rule.secret) for rule in granted.storage.values() if rule.secret
    ]
    claims = [Mount(folder_of(prefix), claim=rule.claim) for prefix, rule in granted.storage.items() if rule.claim]
    volumes = tuple(Volume(volume.path, volume.claim) for volume in granted.volumes.values())
    return replace(
        settings,
        volumes=volumes,
        filer_mounts=tuple(dict.fromkeys((*settings.filer_mounts, *secrets, *claims))),
        filer=filer_settings(settings.filer, granted, credentials),
    )


def pairs(name: str, items: tuple[str, ...]) -> dict[str, str]:
    """Items "key=value" as a dictionary."""
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise PlaceError(f"{name}: {item!r}: expected key=value")
        found[key] = value
    return found


def tolerations(name: str, items: tuple[str, ...]) -> tuple[dict[str, str], ...]:
    return tuple(toleration(name, item) for item in items)


def toleration(name: str, item: str) -> dict[str, str]:
    """ "key=value:Effect", "key:Effect", "key=value" or "key", as kubectl taint writes them, as a Toleration."""
    head, _, effect = item.partition(":")
    key, equals, value = head.partition("=")
    if not key or effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise PlaceError(f"{name}: {item!r}: expected key=value:Effect")
    found = {"key": key, "operator": "Equal" if equals else "Exists"}
    return found | ({"value": value} if equals else {}) | ({"effect": effect} if effect else {})


def mounts(name: str, items: tuple[str, ...]) -> tuple[Mount, ...]:
    """Items "/path=secret:NAME" or "/path=claim:NAME"."""
    found = []
    for item in items:
        path, _, source = item.partition("=")
        kind, _, of = source.partition(":")
        if not path.startswith("/") or kind not in ("secret", "claim") or not of:
            raise PlaceError(f"{name}: {item!r}: expected /path=secret:NAME or /path=claim:NAME")
        found.append(Mount(path, **{kind: of}))
    return tuple(found)


def user(_: str, number: int) -> int | None:
    """A user id; None where the image or the platform chooses it."""
    return None if number < 0 else number


CONVERTED: Final[dict[str, Callable[[str, Any], Any]]] = {
    **dict.fromkeys(("labels", "annotations", "node_selector", "preemptible_node_selector"), pairs),
    **dict.fromkeys(("tolerations", "preemptible_tolerations"), tolerations),
    **dict.fromkeys(("run_as_user", "own_user"), user),
    "filer_mounts": mounts,
}
"""Settings that the pods get in another form than the operator writes."""
