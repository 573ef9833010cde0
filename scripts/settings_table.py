"""Writes the tables of docs/settings.md anew, one for each group of tesk/settings."""

import re
from pathlib import Path

from tesk.settings import TABLE, Group, Setting

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
_TABLES = re.compile(r"(?s)^## `\[.*?(?=^## An example)", re.MULTILINE)


def tables() -> str:
    """A section for each group, in Markdown."""
    groups = dict.fromkeys(setting.group for setting in TABLE)
    return "\n".join(_section(group, [setting for setting in TABLE if setting.group == group]) for group in groups)


def _section(group: Group, settings: list[Setting]) -> str:
    only = f" (only engine {group.engine})" if group.engine else ""
    chart = any(setting.chart for setting in settings)
    lines = [f"## `[{group.name}]`: {group.meaning}{only}", ""]
    lines.append(_row(["file", "environment", "flag", *(["chart"] * chart), "default", "meaning"]))
    lines.append(_row(["---"] * (5 + chart)).replace(" ", ""))
    for setting in settings:
        names = [f"`{each}`" for each in (setting.key, setting.environment, setting.flag)]
        value = [f"`{setting.chart}`" if setting.chart else ""] * chart
        lines.append(_row([*names, *value, _default(setting), _meaning(setting)]))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _meaning(setting: Setting) -> str:
    choices = f" (one of: {', '.join(setting.choices)})" if len(setting.choices) > 1 else ""
    return setting.meaning.replace("|", "\\|") + choices


def _default(setting: Setting) -> str:
    if setting.is_list:
        return "none" if not setting.default else f"`{','.join(setting.default)}`"
    if isinstance(setting.default, float):
        return f"`{setting.default:g}`"
    return "empty" if setting.default == "" else f"`{setting.default}`"


if __name__ == "__main__":
    PAGE.write_text(_TABLES.sub(lambda _: tables() + "\n", PAGE.read_text()))
