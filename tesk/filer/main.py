"""The filer's two doors: `run` for a process that has the plan in hand, `main` for the command line.

`tesk filer inputs|outputs` reads a plan as JSON and writes a report of JSON lines; an engine may instead fork a
process that has imported this and call `run`. So importing starts nothing and loads no storage library.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Final, NoReturn

import msgspec

from tesk.filer.errors import Stopped, TransferError, from_file
from tesk.filer.inputs import fetch_inputs
from tesk.filer.memory import is_want_of_memory, used_up
from tesk.filer.outputs import push_outputs
from tesk.filer.plan import Event, Failed, InputsPlan, Plan
from tesk.filer.step import Step

if TYPE_CHECKING:
    from types import FrameType

USAGE: Final = """\
usage: tesk filer inputs|outputs [--plan FILE] [--report FILE]

Moves the files of one task between remote storage and the task's scratch folder.

  inputs         make the scratch folder ready and fetch the inputs into it
  outputs        push what the task made to the outputs' URLs
  --plan FILE    what to do, as JSON (tesk.filer.plan); - or nothing reads it from standard input
  --report FILE  where events go, one JSON object a line; standard output by default
  --help         show this

Exit status: 0 done, 1 failed (the last event says why), 2 bad usage, 143 ended by a signal.
"""


def run(plan: Plan, emit: Callable[[Event], None], stop: threading.Event) -> bool:
    """Carries out a plan. True when all went well; the last event is Done, or Failed with the reason.

    `stop` ends it within about a second, with no temporary file left. `emit` is never called by two threads at once.
    """
    step = Step(plan.settings, emit, stop)
    try:
        if isinstance(plan, InputsPlan):
            fetch_inputs(plan, step)
        else:
            push_outputs(plan, step)
    except Stopped:
        reason = "the transfer was stopped"
    except TransferError as error:
        reason = error.answer
    except OSError as error:
        reason = from_file(error, f"the scratch folder {plan.root}").answer
    except Exception as error:  # noqa: BLE001 - whatever it is, the task has to be told
        sys.excepthook(type(error), error, error.__traceback__)
        reason = f"the filer failed ({type(error).__name__}); this is a defect of tesk, its log has more"
        if is_want_of_memory(error):
            reason = used_up()
    else:
        step.end()
        return True
    finally:
        step.close()
    step.emit(Failed(reason))
    return False


class BadUsage(Exception):
    """The message says which."""


def main(argv: Sequence[str]) -> int:
    """The command `tesk filer`, `argv` being what follows it."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(USAGE)
        return 0
    try:
        plan, report = _arguments(argv)
    except BadUsage as error:
        sys.stderr.write(f"tesk filer: {error}\n\n{USAGE}")
        return 2
    stop = threading.Event()
    ended_by: list[int] = []

    def on_signal(number: int, _: "FrameType | None") -> None:
        ended_by.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    encode = msgspec.json.Encoder().encode
    with report:

        def emit(event: Event) -> None:
            report.write(encode(event) + b"\n")
            report.flush()

        done = run(plan, emit, stop)
    if ended_by:
        _leave(128 + ended_by[0])
    return 0 if done else 1


def _leave(status: int) -> NoReturn:
    """Ends the process without waiting for a thread that hangs in a system call."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(status)


def _arguments(argv: Sequence[str]) -> tuple[Plan, IO[bytes]]:
    step, options = _parse(argv)
    where = options.get("--plan", "-")
    try:
        if where == "-":
            text = sys.stdin.buffer.read()
        else:
            with open(where, "rb") as file:
                text = file.read()
        plan: Plan = msgspec.json.decode(text, type=Plan)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadUsage(f"the plan {where} cannot be read: {error}") from None
    if (step == "inputs") != isinstance(plan, InputsPlan):
        raise BadUsage(f"the plan is not for {step}")
    try:
        report = open(options["--report"], "wb") if "--report" in options else os.fdopen(os.dup(1), "wb")  # noqa: SIM115
    except OSError as error:
        raise BadUsage(f"the report cannot be written: {error}") from None
    return plan, report


def _parse(argv: Sequence[str]) -> tuple[str, dict[str, str]]:
    steps: list[str] = []
    options: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--plan", "--report"):
            if not equals and not rest:
                raise BadUsage(f"{name} needs a file")
            options[name] = value if equals else rest.pop(0)
        elif word.startswith("-"):
            raise BadUsage(f"unknown option {word}")
        else:
            steps.append(word)
    if len(steps) != 1 or steps[0] not in ("inputs", "outputs"):
        raise BadUsage("say inputs or outputs")
    return steps[0], options
