"""What the caller may use here: the volumes that executors find, the storage, the images."""

import os

from tesk.rules import is_open_to
from tesk.rules.file import RulesFile
from tesk.rules.images import patterns
from tesk.rules.volumes import open_to
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
        volumes = open_to(rules.volumes, identity)
        prefixes = [prefix for prefix, rule in rules.storage.items() if is_open_to(identity, rule.users, rule.groups)]
        document = {
            "volumes": [{"name": name, "path": volume.path} for name, volume in volumes.items()],
            "storage": list(dict.fromkeys([*self._storage, *prefixes])),
            "images": patterns(rules.images, identity),
            "digests_only": rules.images.digests_only,
        }
        return Reply(200, encode(document))
