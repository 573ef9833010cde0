"""What a task's folder on this machine holds: the facts from which a restarted server goes on.

    ID/facts/NAME       one small JSON file per fact that must survive a crash, written whole or not at all
    ID/system.log       the system log's lines so far
    ID/control/N/       what the shim of executor N writes: its streams, where the task names no file for them
    ID/scratch/         the scratch volume, a mirror of the containers' paths; what is copied in its .tesk/files

What lies in control and scratch was written by the user's programs: it is opened without following links.

After a power cut a fact that was not written durably may be gone or empty, and so may any file of the scratch volume,
durable fact or not. An unreadable fact counts as absent: what it was about is then found out or done again. Where that
would be wrong, the fact says in which boot of the machine it was established (`BOOT`).
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET

from tesk.beneath import look_beneath
from tesk.clock import now
from tesk.filer import scratch
from tesk.life.facts import Facts
from tesk.life.log import with_entry
from tesk.shim import ENDED, MOST_ENDED
from tesk.tails import tail, trim
from tesk.tes import ExecutorLog, OutputFileLog, TaskLog

log = logging.getLogger(__name__)
CAP_DAC_OVERRIDE: Final = 1
MOST_ANSWERED: Final = 1024 * 1024


def boot() -> str:
    """What tells this start of the machine from every other (random(4))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


BOOT: Final = boot()


class Folder:
    """The folder of one task. All calls are short file operations on local disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scratch = path / "scratch"

    def make(self) -> None:
        """Makes the folder, closed to other users of this machine."""
        for folder in (self.path, self.path / "facts", self.path / "control", self.scratch):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def control(self, n: int | str) -> Path:
        """The folder that executor N's shim writes to, or that of another container, whatever its user."""
        folder = self.path / "control" / str(n)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        return folder

    def verify(self, n: int, paths: Iterable[str]) -> None:
        """Makes sure that what is to be mounted is there, below the task's folder, and no link leads to it.

        No program can put a link there, since none is given a folder that holds one of these. The engine takes paths
        and follows links, so this is looked at again before each container. Raises OSError.
        """
        for path in [f"/control/{n}", *(f"/scratch{path}" for path in paths)]:
            look_beneath(str(self.path), path)

    def program_folders(self) -> list[Path]:
        """The folders that programs have written to. Raises OSError where one of them is a link."""
        names = [name for name in ("scratch", "control") if os.path.lexists(self.path / name)]
        for name in names:
            look_beneath(str(self.path), name)
        return [self.path / name for name in names]

    def fact(self, name: str, kind: type[Any] = dict) -> Any:
        """The fact, or None if it is not so yet, or if what stands there cannot be read."""
        try:
            return msgspec.json.decode((self.path / "facts" / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            log.warning("task %s: the fact %s cannot be read and counts as absent: %s", self.path.name, name, error)
            return None

    def has(self, name: str) -> bool:
        """True when the fact was established, readable or not."""
        return (self.path / "facts" / name).exists()

    def unreadable(self) -> list[str]:
        """The facts that are there and cannot be read, as after a power cut."""
        found = []
        for entry in sorted((self.path / "facts").glob("[!.]*")):
            try:
                msgspec.json.decode(entry.read_bytes())
            except msgspec.MsgspecError:
                found.append(entry.name)
        return found

    def establish(self, name: str, value: Any, *, durable: bool = False) -> None:
        """Makes the fact so: whole or not at all, whenever the process ends; `durable`: whenever the machine ends."""
        target = self.path / "facts" / name
        draft = target.with_name(f".{name}")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(value))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.rename(target)
        if durable:
            _sync(target.parent)

    def keep(self) -> None:
        """Makes the folder itself durable."""
        for folder in (self.path, self.path.parent):
            _sync(folder)

    def note(self, line: str) -> None:
        """Adds a line to the system log."""
        with (self.path / "system.log").open("a") as log:
            log.write(line.replace("\n", " ") + "\n")

    def notes(self) -> list[str]:
        """The system log's lines."""
        try:
            return (self.path / "system.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def stream(self, n: int, path: str | None, name: str) -> tuple[Path, str]:
        """Where executor N's stdout or stderr lies: a root and a path below it."""
        return (self.scratch, path) if path else (self.path / "control" / str(n), f"/{name}")

    def question(self, name: str) -> Path:
        """The folder for the answer of a shim that looks at an image, without an earlier one."""
        folder = self.control(name)
        (folder / name).unlink(missing_ok=True)
        return folder

    def answer(self, name: str) -> str:
        """What a shim that looked at an image has written, if that is a file."""
        return tail(self.path / "control" / name, f"/{name}", MOST_ANSWERED)

    def ran_out_of_memory(self, n: int) -> bool:
        """True when the shim saw that the kernel killed something in executor N's container for want of memory."""
        return os.path.lexists(self.path / "control" / str(n) / "oom")

    def exit_code(self, n: int) -> int | None:
        """The exit code of executor N's program, where its shim has left one and the program had its directory."""
        found = ENDED.fullmatch(tail(self.path / "control" / str(n), "/ended", MOST_ENDED))
        return int(found[1]) if found and not found[2] else None

    def trim(self, n: int) -> None:
        """Gives back the disk space of all but the end of the streams that no file of the task holds."""
        for name in ("stdout", "stderr"):
            trim(self.path / "control" / str(n), f"/{name}")

    def remove(self) -> None:
        """Scrubs and removes the folder. Raises OSError when something of it cannot be removed.

        What programs have written goes first, each folder where it is: there `program_folders` finds what is left.
        """
        for folder in (self.scratch, self.path / "control", self.path):
            scratch.scrub(str(folder))


def _sync(folder: Path) -> None:
    """Makes the names in a folder durable (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def recalled(folder: Folder, log_bytes: int) -> Facts:
    """The facts of the task as its folder has them; of what its executors wrote, so many bytes at most.

    That the inputs are there is found out anew: whether it still holds depends on the machine.
    """
    log = TaskLog(start_time=folder.fact("began", str) or now(), system_logs=folder.notes() or UNSET)
    while (entry := folder.fact(f"executor-{len(log.logs)}", ExecutorLog)) is not None:
        log = with_entry(log, entry, log_bytes)
    pushed = folder.fact("outputs", list[OutputFileLog])
    log.outputs = pushed or []
    timed_out = [n for n in range(len(log.logs) + 1) if folder.has(f"overdue-{n}")]
    return Facts(log, pushed=pushed is not None, timed_out=timed_out)


def is_master_of_files() -> bool:
    """True when this process can read and remove the files of any user (CAP_DAC_OVERRIDE, capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(effective >> CAP_DAC_OVERRIDE & 1)
