"""The file of rules: read at the start of the server, and held against the engine that tasks run on."""

import tomllib
from pathlib import Path

import msgspec

from tesk.errors import RulesError
from tesk.rules import NO_RULES, Rules, images


class RulesFile:
    """The rules in force. `path` empty: there are none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser() if path else None
        self.rules = NO_RULES

    async def open(self) -> None:
        """Raises RulesError."""
        if self._path is not None:
            self.rules = read_rules(self._path)

    async def close(self) -> None: ...


def read_rules(file: Path) -> Rules:
    """Raises RulesError."""
    try:
        rules = msgspec.convert(tomllib.loads(file.read_text()), Rules)
    except OSError as error:
        raise RulesError(f"{file}: cannot be read: {error.strerror}; check people.rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesError(f"{file}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise RulesError(f"{file}: {error}") from None
    for problem in images.problems(rules.images):
        raise RulesError(f"{file}: {problem}")
    return rules
