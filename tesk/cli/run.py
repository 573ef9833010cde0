"""`tesk run`: one command in one container, from flags to exit code, as `docker run` is used.

The command's own output goes to stdout and stderr, and every message about the task to stderr: so a pipe gets what the
program wrote. The exit code is the program's; 125 means that there is none, as with `docker run`.
"""

import json
from typing import Any, Final

import click

from tesk import schemes
from tesk.cli import document, show
from tesk.cli.options import connect, server_option
from tesk.cli.terminal import echo_output, escaped
from tesk.cli.watch import state_of, wait
from tesk.tes import State

NO_EXIT_CODE: Final = 125


class NoExitCodeError(click.ClickException):
    """The task could not be submitted or followed."""

    exit_code = NO_EXIT_CODE


EXAMPLES: Final = """
    \b
    tesk run --image alpine -- echo hello
    tesk run --image alpine --input https://example.org/a.txt=/in/a.txt -- wc -l /in/a.txt
    tesk run --image alpine --input @script.sh=/run/script.sh -- sh /run/script.sh
    tesk run --image biocontainers/samtools --cpu 4 --ram 8 \\
        --input s3://lab/a.bam=/in/a.bam --output '/out/*.bai=s3://lab/index/' \\
        -- sh -c 'samtools index -o /out/a.bai /in/a.bam'
"""


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    short_help="Run one command in a container and wait for it.",
    help=f"""Run COMMAND in a container as a task, wait for its end and exit with its exit code.

    The command's output is printed when it has ended. Ctrl-C stops the waiting, not the task.
    Exit codes: the command's own; {NO_EXIT_CODE} if the task was cancelled or the server failed; 2 for wrong use.

    Inputs are copied to PATH before the command starts, outputs to their URL after it; a PATH that ends in "/" is a
    directory, and an output PATH may hold wildcards. URLs may be {schemes.in_words()}
    or absolute paths on the server's machine (file: and paths below its --file-root only).
    {EXAMPLES}""",
)
@click.option("--image", required=True, metavar="IMAGE", help="container image")
@click.option("--input", "-i", "inputs", multiple=True, metavar="URL=PATH", help="copy URL (or @LOCAL_FILE) to PATH")
@click.option("--content", "contents", multiple=True, metavar="TEXT=PATH", help="write TEXT to PATH")
@click.option("--output", "-o", "outputs", multiple=True, metavar="PATH=URL", help="copy PATH to URL at the end")
@click.option("--volume", "-v", "volumes", multiple=True, metavar="PATH", help="an empty writable folder")
@click.option("--env", "-e", "env", multiple=True, metavar="KEY=VALUE", help="environment variable of the command")
@click.option("--workdir", "-w", metavar="PATH", help="working directory, made if absent")
@click.option("--stdin", metavar="PATH", help="file in the container that the command reads")
@click.option("--stdout", metavar="PATH", help="file in the container that gets the command's stdout")
@click.option("--stderr", metavar="PATH", help="file in the container that gets the command's stderr")
@click.option("--cpu", type=click.FloatRange(min=0), metavar="CORES", help="cores; fractions are fine")
@click.option("--ram", type=click.FloatRange(min=0), metavar="GIB", help="memory in GiB")
@click.option("--disk", type=click.FloatRange(min=0), metavar="GIB", help="disk in GiB")
@click.option("--name", metavar="TEXT", help="name of the task")
@click.option("--tag", "-t", "tags", multiple=True, metavar="KEY=VALUE", help="tag of the task, to find it by")
@click.option("--ignore-error", is_flag=True, help="COMPLETE even if the command fails")
@click.option("--detach", "-d", is_flag=True, help="print the task's id and do not wait")
@click.option("--dry-run", is_flag=True, help="print the task's document and submit nothing")
@click.option("--json", "as_json", is_flag=True, help="print the ended task's document instead of the command's output")
@click.option("--quiet", "-q", is_flag=True, help="no states on stderr")
@server_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(server: str, detach: bool, dry_run: bool, as_json: bool, quiet: bool, **flags: Any) -> int:
    task = _task(**flags)
    if dry_run:
        show.as_json(task)
        return 0
    client = connect(server)
    try:
        task_id = client.create(json.dumps(task).encode())
        if detach:
            click.echo(escaped(task_id))
            return 0
        return _follow(client, task_id, as_json=as_json, quiet=quiet)
    except click.ClickException as error:
        raise NoExitCodeError(error.message) from error


def _task(**flags: Any) -> dict[str, Any]:
    return document.task_from(
        image=flags["image"],
        command=flags["command"],
        inputs=[*map(document.input_from, flags["inputs"]), *map(document.content_from, flags["contents"])],
        outputs=[document.output_from(text) for text in flags["outputs"]],
        volumes=flags["volumes"],
        executor={key: flags[key] for key in ("workdir", "stdin", "stdout", "stderr", "ignore_error")}
        | {"env": document.pairs_from(flags["env"], what="--env", bare_ok=False)},
        resources={"cpu_cores": _whole(flags["cpu"]), "ram_gb": flags["ram"], "disk_gb": flags["disk"]},
        tags=document.pairs_from(flags["tags"], what="--tag", bare_ok=True),
        name=flags["name"],
    )


def _follow(client: Any, task_id: str, *, as_json: bool, quiet: bool) -> int:
    """Shows each state, then what the task wrote. Returns the exit code."""

    def changed(_: str, state: State) -> None:
        if not quiet:
            click.echo(show.state_line(task_id, state), err=True)

    try:
        wait([task_id], lambda _: state_of(client.get(task_id, "MINIMAL").get("state")), changed)
    except KeyboardInterrupt:
        click.echo(f"\n{task_id} goes on: `tesk wait {task_id}` waits, `tesk cancel {task_id}` ends it", err=True)
        raise
    task = client.get(task_id)
    if as_json:
        show.as_json(task)
    else:
        _print_result(task)
    return exit_code(task)


def _print_result(task: dict[str, Any]) -> None:
    for log in show.executor_logs(task):
        echo_output(log.get("stdout"), err=False)
        echo_output(log.get("stderr"), err=True)
    for line in show.system_logs(task):
        click.echo(f"tesk: {line}", err=True)


def exit_code(task: dict[str, Any]) -> int:
    """0 for COMPLETE; the failed executor's code for EXECUTOR_ERROR; 125 where there is no exit code."""
    state = state_of(task.get("state"))
    if state is State.COMPLETE:
        return 0
    codes = [log.get("exit_code") for log in show.executor_logs(task)]
    if state is State.EXECUTOR_ERROR and codes and isinstance(codes[-1], int) and 0 < codes[-1] < 256:
        return codes[-1]
    return NO_EXIT_CODE


def _whole(number: float | None) -> float | int | None:
    """A whole number as an integer, as the specification wants cores."""
    return int(number) if number is not None and number.is_integer() else number
