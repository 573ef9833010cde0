"""The client commands about tasks that exist: create (from a document), get, list, logs, wait, cancel."""

import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from tesk.cli import show
from tesk.cli.options import connect, ids_argument, json_option, server_option
from tesk.cli.terminal import echo_output, escaped
from tesk.cli.watch import GROWTH, LAST_PAUSE_S, state_of, wait
from tesk.tes import State

if TYPE_CHECKING:
    from tesk.cli.client import TesClient

VIEWS: Final = ("MINIMAL", "BASIC", "FULL")
TIMED_OUT: Final = 124


@click.command("create", short_help="Submit a TES document.")
@server_option
@click.argument("file", type=click.File("rb"))
def create_command(server: str, file: BinaryIO) -> None:
    """Submit the TES document in FILE ("-" is stdin) and print the task's id.

    \b
    tesk create task.json
    tesk run --image alpine --dry-run -- echo hello | tesk create -
    """
    client = connect(server)
    click.echo(escaped(client.create(file.read())))


@click.command("get", short_help="Show tasks.")
@server_option
@json_option
@click.option("--view", type=click.Choice(VIEWS, case_sensitive=False), default="FULL", show_default=True)
@ids_argument
def get_command(server: str, as_json: bool | None, view: str, ids: tuple[str, ...]) -> None:
    """Show tasks: in words on a terminal, as JSON in a pipe (an array if several).

    \b
    tesk get d1q5v0w4k8m2e
    tesk get d1q5v0w4k8m2e | jq '.logs[0].logs[0].exit_code'
    """
    client = connect(server)
    tasks = [client.get(task_id, view) for task_id in ids]
    if _wants_json(as_json):
        show.as_json(tasks[0] if len(tasks) == 1 else tasks)
        return
    for task in tasks:
        show.as_words(task)


@click.command("list", short_help="List tasks, newest first.")
@server_option
@json_option
@click.option(
    "--state",
    type=click.Choice([state.name for state in State], case_sensitive=False),
    metavar="STATE",
    help="in that state",
)
@click.option("--name", metavar="PREFIX", help="whose name begins so")
@click.option("--tag", "-t", "tags", multiple=True, metavar="KEY[=VALUE]", help="with that tag; several: with all")
@click.option(
    "--limit", "-n", type=click.IntRange(min=0), default=100, show_default=True, help="at most so many; 0: all"
)
@click.option("--view", type=click.Choice(VIEWS, case_sensitive=False), default="BASIC", show_default=True)
def list_command(
    server: str,
    as_json: bool | None,
    state: str | None,
    name: str | None,
    tags: tuple[str, ...],
    limit: int,
    view: str,
) -> None:
    """List tasks, newest first: a table on a terminal, a JSON array in a pipe.

    \b
    tesk list --state RUNNING
    tesk list --tag project=mouse --tag batch --limit 0
    tesk list --view MINIMAL | jq -r '.[].id'
    """
    filters = [("state", state), ("name_prefix", name)]
    query = [(key, value) for key, value in filters if value]
    for tag in tags:
        key, _, value = tag.partition("=")
        query += [("tag_key", key), ("tag_value", value)]
    client = connect(server)
    tasks = client.tasks(query, view, limit)
    if _wants_json(as_json):
        show.as_json_array(tasks)
    else:
        show.as_table(tasks)


@click.command("logs", short_help="Print what a task wrote.")
@server_option
@click.option("--follow", "-f", is_flag=True, help="go on as the task writes, until it ends")
@click.option("--executor", type=click.IntRange(min=0), metavar="N", help="only that executor's, counted from 0")
@click.argument("task_id", metavar="ID")
def logs_command(server: str, follow: bool, executor: int | None, task_id: str) -> None:
    """Print what a task's executors wrote: their stdout to stdout, their stderr and the system logs to stderr.

    The server keeps the last part of each (64 KiB unless set otherwise).

    \b
    tesk logs d1q5v0w4k8m2e
    tesk logs --follow d1q5v0w4k8m2e
    """
    shown: dict[tuple[int, str], str] = {}
    pause = 0.1
    client = connect(server)
    while True:
        task = client.get(task_id)
        _print_new(task, shown, executor)
        if not follow or state_of(task.get("state")).is_terminal:
            break
        time.sleep(pause)
        pause = min(LAST_PAUSE_S, pause * GROWTH)
    for line in show.system_logs(task):
        click.echo(f"tesk: {line}", err=True)


@click.command("wait", short_help="Wait for tasks to end.")
@server_option
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="give up after so long, with exit 124")
@click.option("--quiet", "-q", is_flag=True, help="no states on stderr")
@ids_argument
def wait_command(server: str, timeout: float | None, quiet: bool, ids: tuple[str, ...]) -> int:
    """Wait until the tasks have ended; exit 0 if all are COMPLETE, else 1.

    \b
    tesk wait d1q5v0w4k8m2e d1q5v0w8r2c7t
    tesk wait --timeout 60 "$(tesk run --detach --image alpine -- sleep 5)"
    """

    def changed(task_id: str, state: State) -> None:
        if not quiet:
            click.echo(show.state_line(task_id, state), err=True)

    client = connect(server)
    try:
        states = wait(ids, lambda one: _state(client, one), changed, timeout_s=timeout)
    except TimeoutError as error:
        click.echo(f"tesk wait: {error}", err=True)
        return TIMED_OUT
    if not show.on_terminal():
        show.as_json([{"id": task_id, "state": state.name} for task_id, state in states.items()])
    return 0 if set(states.values()) == {State.COMPLETE} else 1


@click.command("cancel", short_help="Cancel tasks.")
@server_option
@ids_argument
def cancel_command(server: str, ids: tuple[str, ...]) -> None:
    """Cancel tasks; a task that has ended stays as it is.

    \b
    tesk cancel d1q5v0w4k8m2e
    tesk list --state QUEUED --limit 0 --view MINIMAL | jq -r '.[].id' | xargs tesk cancel
    """
    client = connect(server)
    for task_id in ids:
        client.cancel(task_id)


def _state(client: "TesClient", task_id: str) -> State:
    return state_of(client.get(task_id, "MINIMAL").get("state"))


def _wants_json(as_json: bool | None) -> bool:
    return not show.on_terminal() if as_json is None else as_json


def _print_new(task: dict[str, Any], shown: dict[tuple[int, str], str], only: int | None) -> None:
    for n, log in enumerate(show.executor_logs(task)):
        if only is not None and n != only:
            continue
        for stream in ("stdout", "stderr"):
            text = log.get(stream) or ""
            echo_output(appended(shown.get((n, stream), ""), text), err=stream == "stderr")
            shown[n, stream] = text
    sys.stdout.flush()


def appended(before: str, now: str) -> str:
    """The text of a stream's tail `now` that is new since its tail `before`; `now` may lack the start of `before`.

    All of `now` where the two have nothing in common: then the program wrote more in between than a tail holds.
    """
    if now.startswith(before):
        return now[len(before) :]
    for start in range(1, len(before)):
        if now.startswith(before[start:]):
            return now[len(before) - start :]
    return now
