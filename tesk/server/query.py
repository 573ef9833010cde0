"""Query strings of get and list, and the page tokens in them.

Unknown parameters are ignored, and empty ones count as not given: forms send both. A page token holds a format number
and the id after which the page begins, so it stays valid while tasks are added. Source: TES 1.1, ListTasks.
"""

import base64
import binascii
import re
from itertools import zip_longest
from typing import Final
from urllib.parse import parse_qsl

from tesk.server.exchange import Refusal
from tesk.store.base import Query, TaskId
from tesk.tes import State

VIEWS: Final = ("MINIMAL", "BASIC", "FULL")
PAGE_SIZE: Final = 256
MAX_PAGE_SIZE: Final = 2047
MOST_TAGS: Final = 256
MOST_FIELDS: Final = 2000

_SIMPLE: Final = {b"": "MINIMAL", **{b"view=" + view.encode(): view for view in VIEWS}}
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_ID: Final = re.compile(r"[0-9a-hjkmnp-tv-z]{13}")
_FORMAT: Final = "1"


def view(query: bytes) -> str:
    """The view that a GET by id asks for; MINIMAL when it names none."""
    return _SIMPLE.get(query) or _view(dict(fields(query)))


def page(query: bytes) -> Query:
    """The page that a list request asks for. Raises Refusal (400) naming the parameter."""
    pairs = fields(query) if query else []
    last = dict(pairs)
    return Query(
        limit=_page_size(last),
        view=_view(last),
        before=_token(last),
        state=_state(last),
        name_prefix=last.get("name_prefix") or None,
        tags=_tags(pairs),
    )


def fields(query: bytes) -> list[tuple[str, str]]:
    """The parameters in order. Raises Refusal (400) for what is not percent-encoded UTF-8 without NUL."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except UnicodeDecodeError:
        raise Refusal(400, "the query is not percent-encoded UTF-8") from None
    except ValueError:
        raise Refusal(400, f"the query has more than {MOST_FIELDS} parameters") from None
    for key, value in pairs:
        if "\0" in value:
            raise Refusal(400, "a value cannot hold a NUL character", key[:100])
    return pairs


def token(last: TaskId) -> str:
    """The token of the page that begins after this task."""
    return base64.urlsafe_b64encode(f"{_FORMAT}{last}".encode()).rstrip(b"=").decode()


def _view(given: dict[str, str]) -> str:
    name = given.get("view") or "MINIMAL"
    if name not in VIEWS:
        raise Refusal(400, f"{name[:100]!r} is not a view; it is one of {', '.join(VIEWS)}", "view")
    return name


def _state(given: dict[str, str]) -> State | None:
    name = given.get("state")
    if not name:
        return None
    if name not in State.__members__:
        raise Refusal(400, f"{name[:100]!r} is not a state; it is one of {', '.join(State.__members__)}", "state")
    return State[name]


def _page_size(given: dict[str, str]) -> int:
    text = given.get("page_size")
    if not text:
        return PAGE_SIZE
    size = int(text) if _NUMBER.fullmatch(text) else 0
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise Refusal(400, f"{text[:100]!r} is not a whole number from 1 to {MAX_PAGE_SIZE}", "page_size")
    return size


def _token(given: dict[str, str]) -> TaskId | None:
    text = given.get("page_token")
    if not text:
        return None
    try:
        plain = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        plain = ""
    if not plain.startswith(_FORMAT) or not _ID.fullmatch(plain[1:]):
        raise Refusal(400, "not a token of this server; send the next_page_token of a page unchanged", "page_token")
    return plain[1:]


def _tags(pairs: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    keys = [value for key, value in pairs if key == "tag_key"]
    values = [value for key, value in pairs if key == "tag_value"]
    if any(values[len(keys) :]):
        raise Refusal(400, f"{len(values)} values for {len(keys)} tag_key; they are paired in order", "tag_value")
    tags = tuple(dict.fromkeys((key, value) for key, value in zip_longest(keys, values, fillvalue="") if key or value))
    if len(tags) > MOST_TAGS:
        raise Refusal(400, f"at most {MOST_TAGS} different tags can be asked for at once", "tag_key")
    return tags
