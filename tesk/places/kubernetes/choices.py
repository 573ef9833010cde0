"""The operator's settings as every taskmaster gets them (pure)."""

import re
from typing import Any, Final

from tesk.filer.plan import FilerSettings
from tesk.kubernetes.task_settings import Mount, TaskSettings
from tesk.places.base import PlaceError
from tesk.settings import Settings

PAIRS: Final = ("labels", "annotations", "node_selector", "preemptible_node_selector")
LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
TOLERATIONS: Final = ("tolerations", "preemptible_tolerations")


def cluster(settings: Settings, namespace: str) -> TaskSettings:
    """The choices for tasks in a namespace. Raises PlaceError for a setting that cannot be used."""
    if not LABEL.fullmatch(settings.instance):
        raise PlaceError(f"instance: {settings.instance!r}: expected a label's value: letters, digits, '-', '_', '.'")
    if not settings.image:
        raise PlaceError("image: needed on a cluster: the image of this product")
    chosen: dict[str, Any] = {
        name: getattr(settings, name) for name in TaskSettings.__struct_fields__ if hasattr(settings, name)
    }
    chosen |= {name: pairs(name, getattr(settings, name)) for name in PAIRS}
    chosen |= {name: tuple(toleration(name, each) for each in getattr(settings, name)) for name in TOLERATIONS}
    chosen["filer_mounts"] = tuple(mount(each) for each in settings.filer_mounts)
    chosen["run_as_user"] = None if settings.run_as_user < 0 else settings.run_as_user
    chosen["own_user"] = None if settings.own_user < 0 else settings.own_user
    chosen["filer"] = FilerSettings(
        file_roots=settings.file_roots,
        missing_outputs=settings.missing_outputs,
        retries=settings.transfer_retries,
        timeout_s=settings.transfer_timeout_s,
        concurrency=settings.transfer_concurrency,
        allow=settings.transfer_allow,
        deny=settings.transfer_deny,
        credentials=settings.credentials,
    )
    return TaskSettings(namespace=namespace, **{key: value for key, value in chosen.items() if key != "namespace"})


def pairs(name: str, items: tuple[str, ...]) -> dict[str, str]:
    """Items "key=value" as a dictionary."""
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise PlaceError(f"{name}: {item!r}: expected key=value")
        found[key] = value
    return found


def toleration(name: str, item: str) -> dict[str, str]:
    """ "key=value:Effect", "key:Effect", "key=value" or "key", as kubectl taint writes them, as a Toleration."""
    head, _, effect = item.partition(":")
    key, equals, value = head.partition("=")
    if not key or effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise PlaceError(f"{name}: {item!r}: expected key=value:Effect")
    found = {"key": key, "operator": "Equal" if equals else "Exists"}
    return found | ({"value": value} if equals else {}) | ({"effect": effect} if effect else {})


def mount(item: str) -> Mount:
    """ "/path=secret:NAME" or "/path=claim:NAME"."""
    path, _, source = item.partition("=")
    kind, _, name = source.partition(":")
    if not path.startswith("/") or kind not in ("secret", "claim") or not name:
        raise PlaceError(f"filer_mounts: {item!r}: expected /path=secret:NAME or /path=claim:NAME")
    return Mount(path, **{kind: name})
