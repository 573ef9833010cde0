"""S3's endpoint and key from the standard places, and nothing that waits for a metadata service that is not there."""

from pathlib import Path

import pytest

from tesk.filer.credentials import Table
from tesk.filer.schemes.s3.aws import location_of
from tesk.filer.schemes.s3.sigv4 import Key
from tesk.tes import Input
from tests.filer.stores import fetch, tree, write
from tests.servers.s3 import S3

OFF = {"AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    write(
        tmp_path,
        {
            ".aws/credentials": b"[default]\naws_access_key_id = D\naws_secret_access_key = d%s\n"
            b"[lab]\naws_access_key_id=L\naws_secret_access_key=l\naws_session_token=t\n",
            ".aws/config": b"[default]\nregion = eu-west-1\n[profile lab]\nregion=eu-north-1\n"
            b"endpoint_url = https://s3.lab.example/\n",
        },
    )
    return {"HOME": str(tmp_path), **OFF}


def test_the_default_profile(home: dict[str, str]) -> None:
    location = location_of(home)
    assert location.endpoint == ""
    assert not location.anonymous
    assert location.options == {"region": "eu-west-1", "access_key_id": "D", "secret_access_key": "d%s"}


def test_a_named_profile(home: dict[str, str]) -> None:
    location = location_of({**home, "AWS_PROFILE": "lab"})
    assert location.options == {
        "endpoint": "https://s3.lab.example",
        "region": "eu-north-1",
        "access_key_id": "L",
        "secret_access_key": "l",
        "session_token": "t",
    }


def test_the_environment_comes_before_the_profile(home: dict[str, str]) -> None:
    environment = {
        **home,
        "AWS_ACCESS_KEY_ID": "E",
        "AWS_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": "http://all",
        "AWS_ENDPOINT_URL_S3": "http://s3",
    }
    assert location_of(environment).options == {"endpoint": "http://s3", "region": "us-west-2"}


def test_web_identity_is_left_to_the_library(home: dict[str, str]) -> None:
    location = location_of({**OFF, "HOME": "/nonexistent", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"})
    assert not location.anonymous
    assert location.options == {"region": "us-east-1"}


def test_without_any_key_requests_are_anonymous() -> None:
    location = location_of({"HOME": "/nonexistent", **OFF})
    assert location.anonymous
    assert location.options == {"region": "us-east-1", "skip_signature": True}


def test_a_profile_serves_a_transfer_and_its_absence_is_told(
    s3: S3, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(served, {"s3/profile-bucket/f": b"x"})
    for name in s3.environment():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    failure = fetch(tmp_path, Input("/f", url="s3://profile-bucket/f")).failure
    assert "access denied (403" in failure
    assert "set AWS_ACCESS_KEY_ID" in failure
    keys = f"[default]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n"
    write(tmp_path, {"home/.aws/credentials": keys.encode()})
    (tmp_path / "root").mkdir()
    assert fetch(tmp_path / "root", Input("/f", url="s3://profile-bucket/f")).ok
    assert tree(tmp_path / "root") == {"f": b"x"}


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({}, ("https://s3.us-east-1.amazonaws.com", "/b/k/é")),
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, ("https://b.s3.us-east-1.amazonaws.com", "/k/é")),
        ({"AWS_ENDPOINT_URL": "http://h:9/s3/"}, ("http://h:9", "/s3/b/k/é")),
        (
            {"AWS_ENDPOINT_URL": "http://b.h:9", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"},
            ("http://b.h:9", "/k/é"),
        ),
    ],
)
def test_an_object_is_where_obstore_looks_for_it(environment: dict[str, str], where: tuple[str, str]) -> None:
    location = location_of({"HOME": "/nonexistent", **OFF, **environment})
    assert location.address("b", "k/é") == where


def test_keys_are_known_where_python_can(home: dict[str, str]) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    assert location_of({**home, **environment}).key == Key("E", "s", "t")
    assert location_of({**home, "AWS_PROFILE": "lab"}).key == Key("L", "l", "t")
    entry = Table("s3://b", Path(), {"access_key_id": "T", "secret_access_key": "u"})
    assert location_of({**home, **environment}, entry).key == Key("T", "u")
    assert location_of({**home, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}).key is None
    assert location_of({**home, **environment, "AWS_SKIP_SIGNATURE": "true"}).key is None
