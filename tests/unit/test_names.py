"""A name means one thing in the whole package: no class name stands twice."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

import tesk

TWICE: Final = {
    "Access": "filer/schemes: azure, google; places/kubernetes/config",
    "ApiError": "places/kubernetes/client, taskmaster/api",
    "End": "places/local/run, taskmaster/outcomes",
    "Entry": "filer/credentials, filer/schemes",
    "Found": "filer/schemes, layout",
    "Identity": "filer/schemes: azure, google",
    "Job": "kubernetes/objects, places/base",
    "Listed": "filer/bounds, filer/schemes/ftp_listing",
    "Listener": "places/kubernetes/live_output, taskmaster/listener",
    "Patience": "places/local/containers, taskmaster/patience",
    "Target": "filer/schemes: ftp_wire, http_wire, ssh",
    "Waiting": "dispatch/queue, places/kubernetes/waiting",
    "_Lines": "filer/schemes: ftp, http_wire",
    "_Plain": "filer/schemes: ftp_wire, http_wire",
    "_Secure": "filer/schemes: ftp_wire, http_wire",
}
"""Names that still stand twice, and the modules. Whoever renames one deletes its entry."""


def test_no_class_name_stands_twice() -> None:
    package = Path(tesk.__file__).parent
    modules = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(str(file.relative_to(package)))
    twice = {name: files for name, files in modules.items() if len(files) > 1 and name not in TWICE}
    assert not twice, "give all but one of these classes a name that says more precisely what it is"
