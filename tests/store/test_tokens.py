"""API tokens in the database: found by digest, listed by user, revoked, also beside a running server."""

import os
from pathlib import Path

import pytest

from tesk.store import open_store, tokens_beside_server
from tesk.store.base import Store, StoreError
from tesk.store.tokens import KEPT_MS, ApiToken, UserRights

DAY_MS = 24 * 3600 * 1000


def token(token_id: str, user: str = "alice", made_ms: int = 0, **facts: int) -> ApiToken:
    return ApiToken(
        id=token_id,
        user=user,
        name=f"{token_id} ü",
        scopes=("read", "submit"),
        way="basic",
        rights=UserRights("Alice", ("lab-a", "lab-b"), ("lab-a",), "lab-b"),
        made_ms=made_ms,
        expires_ms=made_ms + DAY_MS,
        **facts,
    )


async def test_a_token_is_found_by_its_digest_as_it_was_added(store: Store) -> None:
    await store.tokens.add(token("a"), b"digest of a")
    await store.tokens.add(token("b"), b"digest of b")
    assert await store.tokens.find(b"digest of a") == token("a")
    assert await store.tokens.find(b"another digest") is None


async def test_a_user_has_the_own_tokens_newest_first(store: Store) -> None:
    for name, user, made in (("a", "alice", 1), ("b", "alice", 3), ("c", "alice", 2), ("d", "bob", 4)):
        await store.tokens.add(token(name, user, made), name.encode())
    assert [each.id for each in await store.tokens.list("alice")] == ["b", "c", "a"]
    assert [each.id for each in await store.tokens.list(None)] == ["d", "b", "c", "a"]
    assert await store.tokens.list("eve") == []
    await store.tokens.revoke("b", None, 9)
    assert [await store.tokens.count("alice", now) for now in (1, DAY_MS + 1, DAY_MS + 2)] == [2, 1, 0]


async def test_a_token_is_revoked_once_and_by_its_user_alone(store: Store) -> None:
    await store.tokens.add(token("a"), b"a")
    assert await store.tokens.revoke("a", "bob", 5) is None
    assert await store.tokens.revoke("x", None, 5) is None
    for later in (5, 6):
        revoked = await store.tokens.revoke("a", "alice", later)
        assert revoked is not None
        assert revoked.revoked_ms == 5
    assert await store.tokens.find(b"a") == token("a", revoked_ms=5)


async def test_the_last_use_never_goes_back(store: Store) -> None:
    await store.tokens.add(token("a"), b"a")
    for used in (7, 9, 8):
        await store.tokens.note_use("a", used)
    assert await store.tokens.find(b"a") == token("a", used_ms=9)


async def test_new_rights_are_for_the_tokens_of_that_user_and_way(store: Store) -> None:
    for name, user in (("a", "alice"), ("b", "bob")):
        await store.tokens.add(token(name, user), name.encode())
    await store.tokens.note_rights("alice", "oidc", UserRights("other"))
    await store.tokens.note_rights("alice", "basic", UserRights("Alice", ("lab-c",)))
    assert [each.rights.groups for each in await store.tokens.list(None)] == [("lab-c",), ("lab-a", "lab-b")]


async def test_tokens_that_ended_long_ago_go_when_their_user_makes_another(store: Store) -> None:
    await store.tokens.add(token("old", revoked_ms=5), b"old")
    await store.tokens.add(token("of-bob", "bob"), b"of-bob")
    await store.tokens.add(token("recent", made_ms=KEPT_MS + 5), b"recent")
    assert [each.id for each in await store.tokens.list("alice")] == ["recent", "old"]
    await store.tokens.add(token("new", made_ms=KEPT_MS + 6), b"new")
    assert [each.id for each in await store.tokens.list(None)] == ["new", "recent", "of-bob"]


async def test_an_operator_changes_tokens_beside_a_server(database_url: str) -> None:
    async with tokens_beside_server(database_url) as table:
        await table.add(token("a"), b"a")
    store = open_store(database_url, log_tail_bytes=9)
    await store.open()
    assert await store.tokens.find(b"a") == token("a")
    async with tokens_beside_server(database_url) as table:
        await table.add(token("b"), b"b")
        await table.revoke("a", None, 3)
        await store.tokens.add(token("c"), b"c")
        assert {each.id for each in await table.list(None)} == {"a", "b", "c"}
    assert await store.tokens.find(b"b") == token("b")
    assert await store.tokens.find(b"a") == token("a", revoked_ms=3)
    await store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root meets it")
async def test_root_leaves_the_file_of_another_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.touch()
    os.chown(path, 4711, 4711)
    with pytest.raises(StoreError, match="is the user 4711's: do this as that user"):
        async with tokens_beside_server(f"sqlite:///{path}"):
            pass
