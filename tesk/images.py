"""Names of container images, by the grammar of the registries (pure): what is none is refused before it is asked for.

Source: github.com/distribution/reference, regexp.go and reference.go: `[host[:port]/]path[:tag][@digest]`.
"""

import re
from typing import Final

MAX_PATH: Final = 255
TRANSPORT: Final = "docker://"
"""How Apptainer, Snakemake, WDL and skopeo write that what follows is in a registry; engines want it without."""

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_DIGEST: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE: Final = re.compile(
    rf"(?:{_HOST}/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@{_DIGEST})?"
)
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
