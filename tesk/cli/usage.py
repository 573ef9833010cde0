"""`tesk usage`: what users and groups used, by month."""

from typing import Any, Final
from urllib.parse import urlencode

import click

from tesk.cli import show
from tesk.cli.options import connect, json_option, server_option
from tesk.cli.terminal import escaped
from tesk.usage import FIELDS

HEADINGS: Final = ("MONTH", "USER", "GROUP", "TASKS", "CORE HOURS", "GIB HOURS", "GPU HOURS", "BYTES OUT")


@click.command("usage", short_help="Show what you and your groups used.")
@server_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="CSV for a spreadsheet, in seconds")
@click.option("--month", metavar="MONTH", help="a month such as 2026-11, or a year such as 2026  [the present month]")
def usage_command(server: str, as_json: bool | None, as_csv: bool, month: str | None) -> None:
    """Show what your tasks used, by month and group; a manager sees that of the groups, an admin everybody's.

    A task counts once it has ended. Months are those of UTC.

    \b
    tesk usage
    tesk usage --month 2026 --csv >usage.csv
    """
    if as_csv and as_json is not None:
        raise click.UsageError("--csv and --json or --table are not for each other")
    query = f"?{urlencode({'month': month})}" if month else ""
    found = connect(server).beside_tes("GET", f"usage{query}")["usage"]
    if as_csv:
        from tesk.spreadsheet import csv_text

        rows = ([escaped(cell) if isinstance(cell, str) else cell for cell in map(line.get, FIELDS)] for line in found)
        click.echo(csv_text(FIELDS, rows), nl=False)
    elif as_json or (as_json is None and not show.on_terminal()):
        show.as_json_array(found)
    else:
        show.rows(HEADINGS, [_row(line) for line in found])


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    names = (line["month"], line["user"] or "-", line["group"] or "-")
    hours = [f"{line[name] / 3600:,.2f}" for name in ("core_seconds", "ram_gib_seconds", "gpu_seconds")]
    return (*names, f"{line['tasks']:,}", *hours, f"{line['bytes_out']:,}")
