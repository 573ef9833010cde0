"""Who calls, and what the caller may do to whose task (pure).

An identity is found once for each request, at the edge. Whatever reads or changes tasks takes the identity and has no
default for it, so that no handler can forget to ask whose task it is.
"""

from typing import Final, Literal

from msgspec import Struct

Scope = Literal["read", "submit", "cancel"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "submit", "cancel")


class Owner(Struct, frozen=True):
    """Whose task it is: a user, and the group that it was made for. Both are empty where nobody signed in."""

    user: str = ""
    group: str = ""


class Identity(Struct, frozen=True, kw_only=True):
    """`user`: the user's name here, unique among all ways in. `shown`: the name that people read.

    `groups`: those whose tasks the user sees; `manages`: those whose tasks the user sees and may end.
    `way`: the name of the way in by which the user came.
    `sharers`: users who let this one see their tasks. `scopes`: what the credential is good for.
    `token`: the id of the API token, if it was one.
    """

    user: str
    shown: str = ""
    way: str = ""
    groups: frozenset[str] = frozenset()
    manages: frozenset[str] = frozenset()
    sharers: frozenset[str] = frozenset()
    default_group: str = ""
    is_admin: bool = False
    scopes: frozenset[Scope] = frozenset(SCOPES)
    token: str = ""

    def may_see(self, owner: Owner) -> bool:
        if self.is_admin or (owner.user and owner.user in {self.user, *self.sharers}):
            return True
        return bool(owner.group) and (owner.group in self.groups or owner.group in self.manages)

    def may_end(self, owner: Owner) -> bool:
        if self.is_admin or (owner.user and owner.user == self.user):
            return True
        return bool(owner.group) and owner.group in self.manages

    def owner(self, group: str | None) -> Owner | None:
        """Whose a new task is: for this group, or for the default one where `group` is None; empty: for none.

        None where the user may make no task for the group.
        """
        if not self.user:
            return Owner()
        chosen = self.default_group if group is None else group
        may = not group or self.is_admin or group in self.groups
        return Owner(self.user, chosen) if may else None


NOBODY: Final = Identity(user="", scopes=frozenset())
"""Whoever has not signed in, and need not."""
EVERYBODY: Final = Identity(user="", is_admin=True)
"""Whoever calls a server that asks nobody to sign in."""
SERVER: Final = Identity(user="", is_admin=True)
"""The server itself, which takes care of everybody's tasks."""
