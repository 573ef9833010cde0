"""A name means one thing in the whole package: no class name stands twice."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

import tesk

TWICE: Final = {
    "ApiError": "places/kubernetes/client, taskmaster/api",
    "Job": "kubernetes/objects, places/base",
    "Waiting": "dispatch/queue, places/kubernetes/waiting",
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
