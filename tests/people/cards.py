"""Ways in for tests: by name, or by a card, which says who has it and what for: `card:USER:SCOPE,SCOPE…`."""

import asyncio
from collections.abc import Mapping

from tesk.identity import SCOPES, Identity
from tesk.server.people.way import CallerCredential, CannotTell, LetIn, NotLetIn


class Cards:
    """Counts what it is asked. While `is_open` is not set, it does not answer; `is_away`: it cannot tell."""

    name = "card"
    challenge = 'Bearer realm="tesk"'

    def __init__(self, good_for_s: float = 300.0) -> None:
        self.good_for_s = good_for_s
        self.asked: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_away = False

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        if credential.kind not in ("bearer", "key"):
            return None
        self.asked.append(credential.secret)
        await self.is_open.wait()
        if self.is_away:
            raise CannotTell("the office is closed")
        kind, _, rest = credential.secret.partition(":")
        if kind != "card":
            raise NotLetIn("this is no card")
        user, _, scopes = rest.partition(":")
        wanted = scopes.split(",") if scopes else SCOPES
        return LetIn(Identity(user=user, scopes=frozenset(each for each in SCOPES if each in wanted)), self.good_for_s)


class ByName:
    """A way in that knows these people by what they show: what a provider says is not what such a test is about."""

    name = "by name"
    challenge = "Bearer"

    def __init__(self, people: Mapping[str, Identity]) -> None:
        self._people = people

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        found = self._people.get(credential.secret)
        return None if found is None else LetIn(found, 60)
