"""Names of container images, by the grammar of the registries (pure): what is none is refused before it is asked for.

Source: github.com/distribution/reference, regexp.go and reference.go: `[host[:port]/]path[:tag][@digest]`.
"""

import re
from typing import Final

MAX_PATH: Final = 255
TRANSPORT: Final = "docker://"
"""How Apptainer, Snakemake, WDL and skopeo write that what follows is in a registry; engines want it without."""
HUB: Final = "docker.io"
OLD_HUB: Final = "index.docker.io"

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_DIGEST: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE: Final = re.compile(
    rf"(?:{_HOST}/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@{_DIGEST})?"
)
_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")
_ELSEWHERE: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def problem(image: str) -> str:
    """Why no engine can run the image, in words; empty for a reference."""
    match = _REFERENCE.fullmatch(image)
    if match and len(match["path"]) <= MAX_PATH:
        return ""
    if match:
        return f"the path of an image is longer than {MAX_PATH} characters"
    if elsewhere := _ELSEWHERE.match(image):
        return (
            f"{elsewhere[1]}:// names no image that a container engine runs; write [host[:port]/]path[:tag][@digest], "
            f"with or without {TRANSPORT}"
        )
    hint = "; the path is in small letters" if _REFERENCE.fullmatch(image.lower()) else ""
    return f"{image[:200]!r} is not the name of an image: [host[:port]/]path[:tag][@digest]{hint}"


def full(image: str) -> str:
    """The reference with all that engines add to it: the registry, the folder of Docker Hub's own images, the tag.

    A tag before a digest is left out: the digest alone decides what runs.
    """
    name, _, digest = image.partition("@")
    before, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        before, tag = name, "latest"
    host, slash, path = before.partition("/")
    if not slash or not names_registry(host):
        host, path = HUB, before
    host = host.lower() if "." in host or ":" in host else host
    host = HUB if host == OLD_HUB else host
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    return f"{host}/{path}@{digest}" if digest else f"{host}/{path}:{tag}"


def names_registry(component: str) -> bool:
    """Whether what stands before the first slash of a reference is a registry; else that is Docker Hub."""
    return component == "localhost" or any(each in ".:" or each.isupper() for each in component)


def may_be_id(image: str) -> bool:
    """Whether an engine may take the name for the id of an image that it has, whatever registry that came from."""
    return _ID.fullmatch(image) is not None
