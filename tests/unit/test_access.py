"""Which URLs a task may use, by the prefixes of the rules: a table of URLs, and how a hostile one is spelt."""

import pytest

from tesk.filer.access import Decision, Judge, StorageAccess

ACCESS = StorageAccess(
    open=("s3://lab-a", "https://data.org/a", "file:///srv/a", "s3://shared/public", "ftp://h:21/a/"),
    closed=("s3://lab-b", "https://data.org/b", "file:///srv/b", "s3://shared", "ftp://h/b", "drs://drs.org/b"),
)
MINE, OTHERS, ABOVE, DOTS = "", "which is not open to you", "lies in it", '".."'


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://lab-a/x", MINE),
        ("s3://lab-a", MINE),
        ("s3://lab-a-too/x", MINE),
        ("s3://lab-b/x", OTHERS),
        ("s3://lab-b", OTHERS),
        ("S3://LAB-B/x", OTHERS),
        ("s3://shared/public/x", MINE),
        ("s3://shared/publicly", OTHERS),
        ("s3://shared", OTHERS),
        ("s3://else/x", MINE),
        ("https://data.org/b/x", OTHERS),
        ("https://me:pw@DATA.org:443/b/x", OTHERS),
        ("https://data.org/%62/x", OTHERS),
        ("https://data.org/%2562/x", OTHERS),
        ("https://data.org//b/x", OTHERS),
        ("https://data.org/./b/x", OTHERS),
        ("https://data.org/%2e/b/x", OTHERS),
        ("https://data.org\\b\\x", MINE),  # another host, and none that there is
        ("https://data.org/\\b/x", OTHERS),
        ("https://data.org/b;v=1/x", OTHERS),
        ("https://data.org/b?x=1", OTHERS),
        ("https://data.org/a/../b/x", DOTS),
        ("https://data.org/c/../b/x", DOTS),
        ("https://data.org/c/%2e%2e/b/x", DOTS),
        ("https://data.org/c/..;/b/x", DOTS),
        ("https://data.org/" + "%" + "25" * 9 + "62/x", DOTS),  # escaped too often to be looked at
        ("https://else.org/c/../b/x", MINE),
        ("https://data.org/c/x", MINE),
        ("https://data.org/", ABOVE),
        ("https://data.org", ABOVE),
        ("http://data.org/b/x", MINE),
        ("/srv/a/x", MINE),
        ("file:///srv/a/x", MINE),
        ("file:/srv/b/x", OTHERS),
        ("file://localhost/srv/b/x", OTHERS),
        ("FILE:///srv/%62/x", OTHERS),
        ("/srv/b", OTHERS),
        ("/srv//b/x", OTHERS),
        ("/srv/./b/x", OTHERS),
        ("//srv/b/x", OTHERS),
        ("/srv", ABOVE),
        ("/srv/", ABOVE),
        ("/", ABOVE),
        ("/srv/a/../b/x", DOTS),
        ("/else/../srv/b/x", DOTS),
        ("ftp://me@h/a/x", MINE),
        ("ftp://h/b/x", OTHERS),
        ("drs://drs.org/b", OTHERS),
        ("drs://drs.org/c", MINE),
        ("s3:lab-b", MINE),  # as a DRS server may write anything: no store takes it for a URL
        ("", MINE),
    ],
)
def test_the_longest_prefix_in_any_spelling_decides(url: str, why: str) -> None:
    found = Judge(ACCESS).decide(url).refusal
    assert (why in found) if why else not found


def test_what_no_prefix_covers_may_be_closed() -> None:
    decide = Judge(StorageAccess(open=ACCESS.open, closed=ACCESS.closed, unlisted=False)).decide
    assert "have no storage in which it lies" in decide("s3://else/x").refusal
    assert "have no storage" in decide("https://data.org/c/x").refusal
    assert not decide("s3://lab-a/x").refusal
    assert not Judge(StorageAccess()).decide("s3://else/../x").refusal


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("s3://lab-a/x", {"s3://lab-a"}),
        ("s3://else/x", set()),
        ("/srv/a", {"file:///srv/a"}),
        ("s3://top", {"s3://top/one", "s3://top/two"}),
        ("s3://top/one/x", {"s3://top/one"}),
    ],
)
def test_a_url_uses_what_covers_it_and_what_lies_below(url: str, used: set[str]) -> None:
    assert Judge(StorageAccess(open=(*ACCESS.open, "s3://top/one", "s3://top/two"))).decide(url) == Decision(
        "", frozenset(used)
    )
