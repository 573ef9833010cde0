"""What every life on this machine shares."""

import asyncio
from pathlib import Path

from msgspec import Struct

from tesk.places.base import PlaceError
from tesk.places.local import manifest
from tesk.places.local.containers import Containers, StartError
from tesk.places.local.filers import Filers
from tesk.places.local.folder import Folder
from tesk.places.local.looks import Looks
from tesk.settings import Settings


class Machine(Struct, frozen=True):
    """The engine, the filers, what is known of images, and the place of what is mounted into every executor."""

    settings: Settings
    containers: Containers
    looks: Looks
    filers: Filers
    shim: Path
    instance: str
    cores: float

    def labels(self, task_id: str) -> dict[str, str]:
        """Those of each container that is made for a task."""
        return {"tesk.instance": self.instance, "tesk.task": task_id}

    async def on_folders(self, task_id: str, folder: Folder, command: str) -> None:
        """Runs a command of the shim as a container's root on what programs wrote, for a server that is not root."""
        try:
            image = await asyncio.to_thread(folder.fact, "image", str)
            folders = await asyncio.to_thread(folder.program_folders)
            body = manifest.on_folders(image, command, folders, labels=self.labels(task_id), shim=self.shim)
            await self.containers.run_through(f"tesk-{task_id}-{command}", body)
        except (StartError, OSError) as error:
            raise PlaceError(f"task {task_id}: its files could not be reached: {error}") from error
