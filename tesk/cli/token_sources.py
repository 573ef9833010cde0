"""Where `tesk token` works: on a server over HTTP, or in the database of the server on this machine.

Over HTTP users make tokens for themselves. The operator makes them for others in the database: so the first token comes
to be on a server that has no other way in. Whoever can read the server's settings and database needs no other proof.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import click

from tesk.cli.client import Document, TesClient
from tesk.identity import Identity, Scope
from tesk.server.people import tokens, users
from tesk.server.people.way import PeopleError
from tesk.server.people.ways import WAYS
from tesk.settings import Settings
from tesk.settings.load import SettingsError, load
from tesk.store import database_of, tokens_beside_server
from tesk.store.base import StoreError
from tesk.store.identifiers import now_ms
from tesk.store.tokens import TokenTable

T = TypeVar("T")
BASIC: Final = WAYS["users_file"]


class TokenSource(Protocol):
    """Tokens come as the documents of the API (server/people/tokens.document)."""

    def create(self, name: str, scopes: Sequence[Scope], lasts_s: int | None) -> Document: ...

    def list(self) -> list[Document]: ...

    def revoke(self, token_id: str) -> Document: ...


class OverHttp:
    """The tokens of the user whose credential the client sends."""

    def __init__(self, client: TesClient) -> None:
        self._client = client

    def create(self, name: str, scopes: Sequence[Scope], lasts_s: int | None) -> Document:
        wanted = {"name": name, "scopes": scopes, **({"expires_in_s": lasts_s} if lasts_s else {})}
        return self._client.beside_tes("POST", "tokens", wanted)

    def list(self) -> list[Document]:
        return list(self._client.beside_tes("GET", "tokens").get("tokens") or [])

    def revoke(self, token_id: str) -> Document:
        return self._client.beside_tes("DELETE", f"tokens/{token_id}")


class InDatabase:
    """Tokens of a user, or with None of everybody, in the database that the server's settings name."""

    def __init__(self, config: Path | None, user: str | None, groups: Sequence[str] = ()) -> None:
        try:
            self._settings: Settings = load({}, os.environ, config)
        except SettingsError as error:
            raise click.ClickException(str(error)) from None
        self._user = user
        self._groups = groups

    def create(self, name: str, scopes: Sequence[Scope], lasts_s: int | None) -> Document:
        identity = self._identity()
        try:
            tokens.check_name(name)
            life_s = tokens.lasts_s(lasts_s, self._settings.token_days)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        text, token = tokens.new_text(), tokens.new_token(identity, name, now_ms(), life_s, scopes)
        self._do(lambda table: table.add(token, tokens.digest(text)))
        return tokens.document(token, text)

    def list(self) -> list[Document]:
        return [tokens.document(token) for token in self._do(lambda table: table.list(self._user))]

    def revoke(self, token_id: str) -> Document:
        token = self._do(lambda table: table.revoke(token_id, self._user, now_ms()))
        if token is None:
            raise click.ClickException(f"there is no API token {token_id!r}")
        return tokens.document(token)

    def _identity(self) -> Identity:
        """The user, of the way `basic` where the file of users has the name: so the token dies with the user there."""
        user, groups = self._user or "", frozenset(self._groups)
        way = tokens.OPERATOR
        try:
            if self._settings.users_file and user in users.read(Path(self._settings.users_file)):
                way = BASIC
        except PeopleError as error:
            raise click.ClickException(str(error)) from None
        if groups and way == BASIC:
            raise click.UsageError(f"--group: the groups of {user} are in the file of users")
        default_group = self._groups[0] if groups else ""
        return Identity(user=user, shown=user, groups=groups, default_group=default_group, way=way)

    def _do(self, work: Callable[[TokenTable], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            async with tokens_beside_server(database_of(self._settings)) as table:
                return await work(table)

        try:
            return asyncio.run(run())
        except StoreError as error:
            raise click.ClickException(str(error)) from None
