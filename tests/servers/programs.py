"""Programs of this machine for a container of any image: with their libraries, in one folder, below its own path."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.servers.process import program

_LIBRARY = re.compile(r"(?:\S+ => )?(/\S+) \(0x")


def bundle(folder: Path, *names: str) -> str:
    """Copies the programs; the words that start one in a container in which the folder is at /programs."""
    folder.mkdir()
    for name in names:
        path = program(name)
        shutil.copy(path, folder / name)
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for library in _LIBRARY.findall(listed):
            shutil.copy(library, folder)
    loader = next(folder.glob("ld-linux*"))
    return f"/programs/{loader.name} --library-path /programs /programs"
