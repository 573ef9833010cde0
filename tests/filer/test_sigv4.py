"""Signature Version 4: AWS's own examples, and a real store that checks what we sign."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from tesk.filer.schemes.s3.sigv4 import Key, signed
from tests.filer.stores import Places
from tests.servers.s3 import S3

EXAMPLE = Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"
THEN = datetime(2013, 5, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "path", "parameters", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/", {"lifecycle": ""}, {}, b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/",
            {"prefix": "J", "max-keys": "2"},
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["object", "put", "lifecycle", "list"],
)
def test_the_examples_of_the_reference(
    method: str, path: str, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes, signature: str
) -> None:
    sent = signed(
        method,
        HOST,
        path,
        EXAMPLE,
        "us-east-1",
        THEN,
        parameters=parameters,
        headers=headers,
        digest=hashlib.sha256(body).hexdigest(),
    )
    assert sent["Authorization"].endswith(f"Signature={signature}")
    assert sent["x-amz-date"] == "20130524T000000Z"


def test_a_session_token_is_sent_and_signed() -> None:
    sent = signed("GET", HOST, "/f", EXAMPLE._replace(session_token="t"), "us-east-1", THEN)
    assert sent["x-amz-security-token"] == "t"
    assert "x-amz-security-token" in sent["Authorization"]


@pytest.mark.parametrize("name", ["plain", "a b", "a+b&c=d", "100%", "%41", "é/日本", "~t", "a$b'(c)*!", "two\nlines"])
def test_a_store_takes_what_is_signed(places: Places, s3: S3, name: str) -> None:
    path = f"/{places['s3'].folder.name}/{name}"
    assert s3.ask("PUT", path, b"x")[::2] == (200, b"")
    assert (places["s3"].folder / name).read_bytes() == b"x"
    assert s3.ask("GET", path)[::2] == (200, b"x")
    status, _, listing = s3.ask("GET", f"/{places['s3'].folder.name}", parameters={"list-type": "2", "prefix": name})
    assert status == 200
    assert b"<KeyCount>1<" in listing


def test_a_store_refuses_another_key(places: Places, s3: S3) -> None:
    path = f"/{places['s3'].folder.name}/f"
    status, _, answer = s3._replace(secret_key="other").ask("PUT", path, b"x")
    assert status == 403
    assert b"SignatureDoesNotMatch" in answer
