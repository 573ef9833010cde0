"""What a task is given of the rules when it is made (pure)."""

from collections.abc import Iterator

from tesk.errors import NotAllowed
from tesk.filer.access import StorageAccess, judge
from tesk.identity import Identity
from tesk.rules import Grants, Rules, is_open_to
from tesk.rules.images import refusal
from tesk.rules.volumes import in_the_way, open_to
from tesk.schemes import name_of
from tesk.tes import InvalidTask, Task
from tesk.urls import redact

LATE_URLS = ("drs",)
"""Schemes whose files lie at URLs that are known only once they are fetched."""


def grants(task: Task, rules: Rules, identity: Identity) -> Grants:
    """The entries that the task may use. Raises NotAllowed, and InvalidTask for a path in the way of a volume."""
    for n, executor in enumerate(task.executors):
        if why := refusal(executor.image, rules.images, identity):
            raise NotAllowed(why, f"executors[{n}].image")
    volumes = open_to(rules.volumes, identity)
    if problem := in_the_way(task, volumes.values()):
        raise InvalidTask(*problem)
    return Grants(storage=_storage(task, rules, identity), volumes=tuple(volumes))


def _storage(task: Task, rules: Rules, identity: Identity) -> tuple[str, ...]:
    """Those of storage that the task's URLs name; where some are known only later, all that the caller may use."""
    if not rules.storage and rules.unlisted_storage == "open":
        return ()
    mine = [prefix for prefix, rule in rules.storage.items() if is_open_to(identity, rule.users, rule.groups)]
    closed = tuple(sorted(rules.storage.keys() - mine))
    decide = judge(StorageAccess(tuple(mine), closed, unlisted=rules.unlisted_storage == "open")).decide
    used, is_late = set[str](), False
    for field, url in _urls(task):
        decision = decide(url)
        if decision.refusal:
            raise NotAllowed(f"{redact(url)} may not be used: {decision.refusal}", field)
        used |= decision.used
        is_late = is_late or name_of(url) in LATE_URLS
    return tuple(prefix for prefix in mine if is_late or prefix in used)


def _urls(task: Task) -> Iterator[tuple[str, str]]:
    for n, given in enumerate(task.inputs or ()):
        if given.url:
            yield f"inputs[{n}].url", given.url
    for n, made in enumerate(task.outputs or ()):
        yield f"outputs[{n}].url", made.url
