"""What the filer is told and what it tells: a plan in, a report of JSON lines out.

The scratch root mirrors the paths of the containers: container path `/data/a` lies at `ROOT/data/a`. So a plan is
the task's own inputs or outputs and a root, and neither side needs a table of paths. Where some paths are copied, the
plan names those that are not, `uncopied`; the others lie below ROOT/.tesk/files.
"""

from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct, field

from tesk.declared import declared
from tesk.filer.access import StorageAccess
from tesk.tes import Input, Output

if TYPE_CHECKING:
    from tesk.settings import Settings

TRANSFER: Final = ("retries", "timeout_s", "concurrency", "allow", "deny")
"""Fields of FilerSettings whose settings are called transfer_…; the others have the setting's name."""


class CredentialsFor(Struct, frozen=True):
    """A file of credentials, or a folder of them, that serves what lies at and below `prefix` alone."""

    prefix: str
    place: str


class FilerSettings(Struct, frozen=True, omit_defaults=True):
    """How transfers behave. `file_roots`: folders that file: URLs and bare paths may use; none by default.

    `allow` and `deny` are names, addresses and networks: see tesk.filer.reach. `access`: what the rules open to the
    task.
    """

    file_roots: tuple[str, ...] = declared("file_roots")
    missing_outputs: Literal["warning", "error"] = declared("missing_outputs")
    retries: int = declared("transfer_retries")
    timeout_s: float = declared("transfer_timeout_s")
    concurrency: int = declared("transfer_concurrency")
    allow: tuple[str, ...] = declared("transfer_allow")
    deny: tuple[str, ...] = declared("transfer_deny")
    credentials: tuple[str | CredentialsFor, ...] = declared("credentials")
    access: StorageAccess = StorageAccess()

    @classmethod
    def of(cls, settings: "Settings") -> "FilerSettings":
        """What the operator chose."""
        named = (name for name in cls.__struct_fields__ if name != "access")
        names = {name: f"transfer_{name}" if name in TRANSFER else name for name in named}
        return cls(**{name: getattr(settings, setting) for name, setting in names.items()})


class InputsPlan(Struct, frozen=True, omit_defaults=True, tag="inputs", tag_field="step"):
    """Make `directories` (0777) and `files` (empty, 0666) below the root, then fetch the inputs in order.

    `copies_all`: no input is too large to be copied into containers.
    """

    root: str
    inputs: list[Input] = []
    directories: list[str] = []
    files: list[str] = []
    settings: FilerSettings = field(default_factory=FilerSettings)
    uncopied: list[str] | None = None
    copies_all: bool = False


class OutputsPlan(Struct, frozen=True, omit_defaults=True, tag="outputs", tag_field="step"):
    """Push what the outputs name below the root."""

    root: str
    outputs: list[Output] = []
    settings: FilerSettings = field(default_factory=FilerSettings)
    uncopied: list[str] | None = None


Plan = InputsPlan | OutputsPlan


class Pushed(Struct, tag="output", tag_field="event"):
    """One file that arrived: its URL, its path in the container, its size."""

    url: str
    path: str
    size_bytes: int


class Typed(Struct, tag="types", tag_field="event"):
    """What the plan's inputs or outputs are: a letter for each (tes.FileTypes), told where some have no type."""

    letters: str


class Large(Struct, tag="large", tag_field="event"):
    """The container path of an input that is too large to be copied into containers: it is mounted alone."""

    path: str


class Looked(Struct, tag="looked", tag_field="event"):
    """What the images of the task have where its files lie (layout.Found), told before anything is moved."""

    occupied: dict[str, bool]


class Warned(Struct, tag="warning", tag_field="event"):
    message: str


class Failed(Struct, tag="error", tag_field="event"):
    """Why the whole step failed: which URL, what the other side answered, after how many tries."""

    message: str


class Progress(Struct, tag="progress", tag_field="event"):
    """How far the step is, at most every few seconds."""

    bytes_done: int
    files_done: int
    bytes_total: int | None = None
    files_total: int | None = None

    def words(self) -> str:
        """As in "40 GB of 120 GB, 3 of 7 files"."""
        of_bytes = f" of {_size(self.bytes_total)}" if self.bytes_total else ""
        of_files = f" of {self.files_total}" if self.files_total else ""
        return f"{_size(self.bytes_done)}{of_bytes}, {self.files_done}{of_files} files"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


class Done(Struct, tag="done", tag_field="event"):
    """The last line of a step that went well."""


Event = Pushed | Typed | Large | Looked | Warned | Failed | Progress | Done
