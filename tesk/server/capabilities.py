"""What the caller may use here: the volumes that executors find, the storage, the images."""

import asyncio
import os

from tesk.rules.file import RulesFile
from tesk.rules.images import patterns
from tesk.rules.volumes import open_to
from tesk.server.exchange import Call, Reply, encode
from tesk.server.service import storage
from tesk.settings import Settings


class Capabilities:
    """GET /api/v1/capabilities."""

    def __init__(self, settings: Settings, rules: RulesFile) -> None:
        self._settings = settings
        self._rules = rules

    async def get(self, call: Call) -> Reply:
        rules, caller = self._rules.rules, call.identity
        volumes = open_to(rules.volumes, caller)
        document = {
            "volumes": [{"name": name, "path": volume.path} for name, volume in volumes.items()],
            "storage": await asyncio.to_thread(storage, self._settings, os.environ, rules, caller),
            "images": patterns(rules.images, caller),
            "digests_only": rules.images.digests_only,
        }
        return Reply(200, encode(document))
