"""The file of rules: read at the start of the server and after each change, and held against the server's settings."""

import logging
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from tesk.errors import RulesError
from tesk.rules import NO_RULES, Rules
from tesk.watched_file import WatchedFile

log: Final = logging.getLogger(__name__)


class RulesFile:
    """The rules in force. `path` empty: there are none. `check` raises RulesError for rules that cannot be followed."""

    def __init__(self, path: str, check: Callable[[Rules], None] = lambda _: None) -> None:
        self.rules = NO_RULES
        self._check = check
        self._file: WatchedFile | None = None
        if path:
            file = Path(path).expanduser().absolute()
            self._file = WatchedFile(file, self._read, self._use, RulesError, "the rules are those of before")

    async def open(self) -> None:
        """Raises RulesError."""
        if self._file is not None:
            await self._file.open()

    async def close(self) -> None:
        if self._file is not None:
            await self._file.close()

    def _read(self, file: Path) -> Rules:
        rules = read_rules(file)
        try:
            self._check(rules)
        except RulesError as error:
            raise RulesError(f"{file}: {error}") from None
        return rules

    def _use(self, rules: Rules) -> None:
        if self.rules is not NO_RULES:
            log.info("the rules have changed, and hold from now on")
        self.rules = rules


def read_rules(file: Path) -> Rules:
    """The rules, with absolute paths of credentials. Raises RulesError."""
    try:
        rules = msgspec.convert(tomllib.loads(file.read_text()), Rules)
    except OSError as error:
        raise RulesError(f"{file}: cannot be read: {error.strerror}; check people.rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesError(f"{file}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise RulesError(f"{file}: {error}") from None
    storage = {
        prefix: replace(rule, credentials=str(file.parent / rule.credentials)) if rule.credentials else rule
        for prefix, rule in rules.storage.items()
    }
    return replace(rules, storage=storage)
