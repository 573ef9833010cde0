"""What the client commands print: tables and words on a terminal, JSON in a pipe.

JSON is the task's whole document. Tables and words are for people: they hold no control characters and no credentials.
rich is imported only where a table is drawn. Task ids and states stand first, so that a narrow terminal shows them.
"""

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from tesk.cli.terminal import escaped, json_text
from tesk.tes import State
from tesk.urls import redact

Document = dict[str, Any]

COLOURS: Mapping[State, str] = {
    State.QUEUED: "yellow",
    State.INITIALIZING: "cyan",
    State.RUNNING: "blue",
    State.COMPLETE: "green",
    State.EXECUTOR_ERROR: "red",
    State.SYSTEM_ERROR: "red",
    State.CANCELED: "magenta",
    State.CANCELING: "magenta",
}


def on_terminal() -> bool:
    return sys.stdout.isatty()


def as_json(document: object) -> None:
    click.echo(json_text(document, indent=2))


def as_json_array(documents: Iterable[Document]) -> None:
    """One JSON array, written item by item, so that a long list takes no memory."""
    between = "[\n  "
    for document in documents:
        click.echo(between + json_text(document), nl=False)
        between = ",\n  "
    click.echo("[]" if between.startswith("[") else "\n]")


def as_table(tasks: Iterable[Document]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "STATE", "CREATED", "NAME", "COMMAND"):
        table.add_column(heading, no_wrap=heading != "COMMAND", overflow="ellipsis")
    for task in tasks:
        table.add_row(
            Text(escaped(task["id"])),
            _coloured(task.get("state")),
            *(Text(escaped(shown)) for shown in (_moment(task), _name(task), _command(task))),
        )
    Console().print(table)


def rows(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """A table of plain texts."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*(Text(escaped(text)) for text in line))
    Console().print(table)


def as_words(task: Document) -> None:
    """A task in words: what it does, its state, its results."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _facts(task):
        table.add_row(escaped(label), text if isinstance(text, Text) else Text(escaped(text)))
    Console().print(table)


def state_line(task_id: str, state: State) -> str:
    """A state for stderr, in colour on a terminal."""
    return f"{escaped(task_id)}  {click.style(state.name, fg=COLOURS.get(state))}"


def system_logs(task: Document) -> list[str]:
    """Each system log as one line without control characters."""
    return [escaped(line) for attempt in task.get("logs") or [] for line in attempt.get("system_logs") or []]


def executor_logs(task: Document) -> list[Document]:
    """The logs of the newest attempt's executors."""
    attempts = task.get("logs") or []
    return list(attempts[-1].get("logs") or []) if attempts else []


def _facts(task: Document) -> Iterable[tuple[str, Any]]:
    yield "id", task["id"]
    yield "state", _coloured(task.get("state"))
    for key in ("name", "description"):
        if task.get(key):
            yield key, task[key]
    yield "created", _moment(task)
    for key, value in (task.get("tags") or {}).items():
        yield "tag", f"{key}={value}"
    for given in task.get("inputs") or []:
        yield "input", f"{redact(given.get('url') or '(content)')} → {given['path']}"
    codes = [log.get("exit_code") for log in executor_logs(task)]
    for n, executor in enumerate(task.get("executors") or []):
        end = f" → exit code {codes[n]}" if n < len(codes) else ""
        yield f"executor {n}", f"{executor['image']}: {_quoted(executor['command'])}{end}"
    for output in task.get("outputs") or []:
        yield "output", f"{output['path']} → {redact(output['url'])}"
    for attempt in task.get("logs") or []:
        for file in attempt.get("outputs") or []:
            yield "written", f"{redact(file['url'])} ({file['size_bytes']} bytes)"
    for line in system_logs(task):
        yield "system log", line


def _coloured(name: object) -> Any:
    from rich.text import Text

    return Text(escaped(name), style=COLOURS.get(State.__members__.get(str(name), State.UNKNOWN), ""))


def _moment(task: Document) -> str:
    return str(task.get("creation_time") or "").replace("T", " ")[:19]


def _name(task: Document) -> str:
    return str(task.get("name") or "")


def _command(task: Document) -> str:
    executors = task.get("executors") or []
    more = f" (+{len(executors) - 1} more)" if len(executors) > 1 else ""
    return _quoted(executors[0]["command"])[:200] + more if executors else ""


def _quoted(command: list[str]) -> str:
    return shlex.join(command)
