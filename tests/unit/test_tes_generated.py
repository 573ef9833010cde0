"""tes.parse over generated documents: what may run is kept whole, and nothing is an error of the server's own."""

import contextlib
import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tesk import tes
from tesk.tes import InvalidTask


def parse(document: object) -> tes.Task:
    return tes.parse(json.dumps(document).encode())[0]


GIVEN = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
PATH = st.lists(st.text("abc.*?[ü ", min_size=1, max_size=8).filter(lambda part: part != ".."), min_size=1).map(
    lambda parts: "/x/" + "/".join(parts)
)
FILE = st.text("abc*?[ü ", min_size=1, max_size=8).map(lambda name: f"/y/{name}")
IMAGE = st.from_regex(
    r"(?:[a-z]{1,5}\.org(?::[0-9]{1,4})?/)?[a-z0-9]{1,9}(?:[._-][a-z]{1,3})?(?::[A-Za-z0-9_]{1,9})?", fullmatch=True
)
TASKS = st.fixed_dictionaries(
    {
        "executors": st.lists(
            st.fixed_dictionaries(
                {"image": IMAGE, "command": st.lists(TEXT, min_size=1, max_size=4)},
                optional={
                    "workdir": PATH,
                    "stdin": FILE,
                    "stdout": FILE,
                    "env": st.dictionaries(st.text("ABC_", min_size=1), TEXT, min_size=1),
                    "ignore_error": st.just(True),
                },
            ),
            min_size=1,
            max_size=3,
        )
    },
    optional={
        "name": TEXT,
        "description": TEXT,
        "inputs": st.lists(st.fixed_dictionaries({"path": FILE, "content": TEXT}), min_size=1, max_size=3),
        "volumes": st.lists(PATH, min_size=1, max_size=3),
        "tags": st.dictionaries(TEXT, TEXT, min_size=1, max_size=3),
        "resources": st.fixed_dictionaries({"cpu_cores": st.integers(0, 99) | st.floats(0, 99)}),
    },
)


@GIVEN
@given(TASKS)
def test_any_runnable_task_is_kept_whole(document: dict[str, Any]) -> None:
    assert json.loads(tes.encode(parse(document))) == document


@GIVEN
@given(TASKS)
def test_what_is_stored_reads_as_what_was_parsed(document: dict[str, Any]) -> None:
    parsed = parse(document)
    assert tes.decode(tes.encode(parsed)) == parsed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
FIELDS = sorted({field.name for field in msgspec.structs.fields(tes.Task)})


@GIVEN
@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_json_document_is_an_error_of_the_server(document: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidTask):
        parse({"executors": [{"image": "alpine", "command": ["true"]}], **document})


@GIVEN
@given(st.binary())
def test_no_body_is_an_error_of_the_server(body: bytes) -> None:
    with contextlib.suppress(InvalidTask):
        tes.parse(body)
