"""Where `tesk` and `python -m tesk` begin.

What runs beside tasks starts several times for each of them, so it is told apart from everything else before anything
but the standard library is imported.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

LIGHT: Final = {
    "filer": "tesk.filer.main",
    "front": "tesk.front",
    "reporter": "tesk.pod.reporter",
    "runner": "tesk.pod.runner",
    "taskmaster": "tesk.taskmaster.main",
}
"""Commands that tesk gives itself, and their modules: each has `main(arguments) -> exit code`."""


def main() -> int:
    """Runs the command line; the exit code. click may end the process itself."""
    words = sys.argv[1:]
    if words and words[0] in LIGHT:
        if words[0] != "filer":  # whose storage libraries need it
            # msgspec would import it, though Python has all of it since 3.11: a quarter of a taskmaster's start.
            sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
        module = "tesk.pod.filer" if words[0] == "filer" and "--pod" in words else LIGHT[words[0]]
        command: Callable[[Sequence[str]], int] = import_module(module).main
        return command(words[1:])
    from tesk.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
