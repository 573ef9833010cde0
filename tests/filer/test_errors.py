"""Failures as sentences, without secrets; and how long a retry waits."""

import pytest

from tesk.filer.errors import TransferError, printable, redact, sentence
from tesk.filer.retry import delay_s


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://me:secret@host/a", "ftp://host/a"),
        ("ftp://me:se@cret@host:21/a@b", "ftp://host:21/a@b"),
        ("s3://AKIA:abc/def@bucket/key", "s3://bucket/key"),
        ("s3://AKIA:12/34@bucket/key", "s3://bucket/key"),
        ("s3://AKIA:abc/d@f#x@bucket/key", "s3://bucket/key"),
        ("ftp://user:pa/ss@host/x", "ftp://host/x"),
        ("ftp://user:pa#s?s@host/x", "ftp://host/x"),
        ("sftp://user:12/34ab@host/x", "sftp://user:12/34ab@host/x"),  # may be a host, a port and a path
        ("http://user:a/b@host/x?key=1", "http://host/x?…"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("http://host:/a@b", "http://host:/a@b"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://token@host/a", "http://host/a"),
        ("http://host/a?X-Amz-Signature=abc", "http://host/a?…"),
        ("https://me:x@host/a?key=1#f", "https://host/a?…"),
        ("s3://bucket/a@b?c#d", "s3://bucket/a@b?c#d"),
        ("/a/b?c@d", "/a/b?c@d"),
        ("file:///a?b", "file:///a?b"),
        ("not a url", "not a url"),
    ],
)
def test_a_shown_url_holds_no_credential(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_failure_is_a_sentence() -> None:
    error = TransferError("access denied (403) by http://minio:9000", 'check the key configured for "s3://lab"')
    assert sentence("input", "s3://lab/reads.bam", error) == (
        "input s3://lab/reads.bam: access denied (403) by http://minio:9000 after 1 try; "
        'check the key configured for "s3://lab"'
    )


def test_names_that_are_not_text_can_be_shown() -> None:
    assert printable("a\udcffb") == "a\ufffdb"
    assert printable("é") == "é"


@pytest.mark.parametrize(
    ("tries", "asked_s", "chance", "expected_s"),
    [(1, 0, 0, 0.125), (1, 0, 1, 0.25), (3, 0, 1, 1.0), (20, 0, 1, 30.0), (1, 7, 0.5, 7), (1, 86400, 0, 300)],
)
def test_waits_grow_are_jittered_bounded_and_heed_the_server(
    tries: int, asked_s: float, chance: float, expected_s: float
) -> None:
    assert delay_s(tries, asked_s, chance) == expected_s
