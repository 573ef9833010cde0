"""What the caller may use here: the volumes that executors find, the storage, the images."""

import os

from tesk.identity import Identity
from tesk.rules import StorageRule, VolumeRule, is_open_to
from tesk.rules.file import RulesFile
from tesk.rules.images import patterns
from tesk.server.exchange import Call, Reply, encode
from tesk.server.service import storage
from tesk.settings import Settings


class Capabilities:
    """GET /api/v1/capabilities."""

    def __init__(self, settings: Settings, rules: RulesFile) -> None:
        self._storage = storage(settings, os.environ)
        self._rules = rules

    async def get(self, call: Call) -> Reply:
        rules, identity = self._rules.rules, call.identity
        volumes = [each for each in rules.volumes.items() if _is_open(identity, each[1])]
        prefixes = [prefix for prefix, rule in rules.storage.items() if _is_open(identity, rule)]
        document = {
            "volumes": [{"name": name, "path": volume.path} for name, volume in volumes],
            "storage": list(dict.fromkeys([*self._storage, *prefixes])),
            "images": patterns(rules.images, identity),
            "digests_only": rules.images.digests_only,
        }
        return Reply(200, encode(document))


def _is_open(identity: Identity, rule: StorageRule | VolumeRule) -> bool:
    return is_open_to(identity, rule.users, rule.groups)
