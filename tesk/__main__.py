"""Where `tesk` and `python -m tesk` begin.

The filer starts once or twice for each task, so it is told apart from everything else before anything but the
standard library is imported.
"""

import sys


def main() -> int:
    """Runs the command line; the exit code. click may end the process itself."""
    if sys.argv[1:2] == ["filer"]:
        from tesk.filer.main import main as filer

        return filer(sys.argv[2:])
    from tesk.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
