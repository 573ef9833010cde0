"""The settings in force.

A setting comes from the flag of `tesk serve`, else from its variable in the environment, else from the TOML file named
by --config (or TESK_CONFIG), else from its default. The file and the environment may use the name that a setting had
before there were groups, in this version alone and with a warning.
"""

import logging
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tesk.settings import TABLE, Setting, Settings

Warn = Callable[[str], object]
log: Final = logging.getLogger(__name__)


class SettingsError(ValueError):
    """A setting that cannot be used: the message names where it was set and why it is refused."""


class Given(NamedTuple):
    """A value as it was given. `source`: what messages call the place. `is_text`: its type is read from its text."""

    source: str
    value: Any
    is_text: bool


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], config: Path | None = None, warn: Warn = log.warning
) -> Settings:
    """The settings in force. `flags` are by setting name; `config` is the file of --config, else TESK_CONFIG names one.

    An empty variable counts as unset. Paths of the server's own files and folders come out absolute. `warn` takes a
    line for each old name. Raises SettingsError, also for a setting that the chosen engine does not read.
    """
    if config is None and environ.get("TESK_CONFIG"):
        config = Path(environ["TESK_CONFIG"])
    file = _read(config) if config else {}
    variables = {name: text for name, text in environ.items() if text}
    given: dict[str, Given] = {}
    for setting in TABLE:
        if found := _named(setting.path, setting.name, file, f"{config}: ", warn):
            given[setting.name] = Given(*found, is_text=False)
        if found := _named(setting.environment, f"TESK_{setting.name.upper()}", variables, "", warn):
            source, text = found
            given[setting.name] = Given(source, _items(text) if setting.is_list else text, is_text=True)
        if flags.get(setting.name) is not None:
            given[setting.name] = Given(setting.flag, flags[setting.name], is_text=True)
    settings = Settings(**{each.name: _convert(each, given[each.name]) for each in TABLE if each.name in given})
    _refuse_ignored(settings.engine, given)
    return msgspec.structs.replace(
        settings,
        data=_absolute(settings.data),
        users_file=_absolute(settings.users_file) if settings.users_file else "",
        issuers=_absolute(settings.issuers) if settings.issuers else "",
        rules=_absolute(settings.rules) if settings.rules else "",
        file_roots=tuple(map(_absolute, settings.file_roots)),
        credentials=tuple(map(_absolute, settings.credentials)),
    )


def _named(name: str, old_name: str, values: Mapping[str, Any], place: str, warn: Warn) -> tuple[str, Any] | None:
    """A setting's value in the file or the environment, and by which of its two names it was found there."""
    if old_name == name or old_name not in values:
        return (f"{place}{name}", values[name]) if name in values else None
    if name in values:
        raise SettingsError(f"{place}{old_name}: {name} sets the same; leave out {old_name}")
    warn(f"{place}{old_name}: is called {name} now; the next version does not know the old name")
    return f"{place}{old_name}", values[old_name]


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _refuse_ignored(engine: str, given: Mapping[str, Given]) -> None:
    """Raises SettingsError for a setting that was given and that the engine would not read."""
    for setting in TABLE:
        reader = setting.group.engine or engine
        if setting.name in given and reader != engine:
            source = given[setting.name].source
            raise SettingsError(
                f"{source}: only the {reader} engine reads this setting, and engine is {engine}; leave it out"
            )


def _read(config: Path) -> dict[str, Any]:
    """What the file sets, by `group.key` or old name."""
    try:
        written = tomllib.loads(config.read_text())
    except OSError as error:
        raise SettingsError(f"{config}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: not TOML: {error}") from None
    groups = {setting.group.name for setting in TABLE}
    found: dict[str, Any] = {}
    for name, value in written.items():
        is_group = name in groups and isinstance(value, dict)
        found |= {f"{name}.{key}": each for key, each in value.items()} if is_group else {name: value}
    known = {setting.path for setting in TABLE} | {setting.name for setting in TABLE}
    for name in found:
        if name not in known:
            raise SettingsError(f"{config}: {name}: no such setting; docs/settings.md lists them all")
    return found


def _convert(setting: Setting, given: Given) -> Any:
    try:
        return msgspec.convert(given.value, setting.type, strict=not given.is_text)
    except msgspec.ValidationError as error:
        reason = _in_words(str(error))
    if setting.choices:
        reason = f"expected one of {', '.join(setting.choices)}"
    hint = ""
    if isinstance(given.value, str) and given.value.startswith("tcp://"):
        service = given.source.removesuffix("_PORT").replace("_", "-").lower()
        hint = f"; Kubernetes sets this for a Service named {service}: set enableServiceLinks: false on the pod"
    raise SettingsError(f"{given.source}: {reason}{hint}")


_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "str": "text",
}


def _in_words(refusal: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$`" as "expected a whole number, got text"."""
    reason = re.sub(r"`(\w+)`", lambda match: _WORDS.get(match[1], match[1]), refusal.partition(" - at ")[0])
    return reason[:1].lower() + reason[1:]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
