"""The issuers' file: what it may say, and that nobody lets the world in by accident."""

import re
from pathlib import Path

import pytest

from tesk.server.people.oidc.issuers import Issuer, is_safe, read_issuers
from tesk.server.people.way import PeopleError

ROOT = Path(__file__).parents[2]
LOGIN = 'issuer = "https://login.example.org/oidc/"'
OTHER = 'issuer = "https://other.example.org"'
AUDIENCE = 'audience = ["https://tes.example.org"]'
OPEN = ("anyone = true", 'opaque_tokens = "userinfo"')


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "issuers.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_table_has_defaults_for_all_but_the_issuer_and_for_whom_it_is(tmp_path: Path) -> None:
    (issuer,) = read_issuers(_file(tmp_path, "[lslogin]", LOGIN, AUDIENCE))
    assert issuer.name == "lslogin"
    assert issuer.issuer == "https://login.example.org/oidc/"
    assert (issuer.principal_claim, issuer.cache_s, issuer.leeway_s) == ("sub", 300, 30)
    assert issuer.opaque_tokens == "refused"


def test_files_that_a_table_names_lie_beside_the_issuers_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    client = ['client_id = "tesk"', 'client_secret_file = "secret"', 'opaque_tokens = "introspection"']
    (issuer,) = read_issuers(_file(tmp_path, "[a]", LOGIN, AUDIENCE, *client))
    assert issuer.client_secret_file == str(tmp_path / "secret")
    assert issuer.secret() == "s3cret"


@pytest.mark.parametrize("door", [AUDIENCE, 'required_groups = ["lab-a"]', "anyone = true"])
def test_a_table_says_who_may_come_in(tmp_path: Path, door: str) -> None:
    assert read_issuers(_file(tmp_path, "[a]", LOGIN, door))


@pytest.mark.parametrize(
    ("lines", "place", "words"),
    [
        (["[first]", LOGIN, AUDIENCE, "", "[world]", OTHER], ":5: [world]", "everybody with an account"),
        (["[a]", LOGIN, "audience = []", "required_groups = []"], ":1: [a]", "everybody with an account"),
        (["[a]", AUDIENCE], ":1: [a]", "issuer"),
        (["[a]", LOGIN, 'audience = "one"'], ":1: [a]", "audience: expected array"),
        (["[a]", LOGIN, AUDIENCE, "audiences = []"], ":1: [a]", "unknown field `audiences`".replace("`", "")),
        (["[a]", 'issuer = "http://login.example.org"', AUDIENCE], ":1: [a]", "begins with https://"),
        (["[a]", 'issuer = "login.example.org"', AUDIENCE], ":1: [a]", "begins with https://"),
        (["[a]", LOGIN, AUDIENCE, 'opaque_tokens = "introspection"'], ":1: [a]", "needs client_id"),
        (["[a]", LOGIN, AUDIENCE, 'groups_from = "introspection"'], ":1: [a]", "needs client_id"),
        (["[a]", LOGIN, AUDIENCE, 'opaque_tokens = "userinfo"'], ":1: [a]", "cannot check the audience"),
        (
            ["[a]", LOGIN, "anyone = true", 'opaque_tokens = "userinfo"', 'required_scopes = ["tes"]'],
            ":1: [a]",
            "cannot check required_scopes",
        ),
        (["[a]", LOGIN, AUDIENCE, 'client_secret_file = "none"'], ":1: [a]", "none cannot be read"),
        (["[a]", LOGIN, AUDIENCE, 'ca_file = "none"'], ":1: [a]", "none cannot be used"),
        (["[a]", LOGIN, AUDIENCE, "[b]", LOGIN, AUDIENCE], ":4: [b]", "[a] has the same issuer"),
        (
            ["[a]", LOGIN, *OPEN, "[b]", OTHER, *OPEN],
            ":5: [b]",
            "[a] takes opaque tokens already",
        ),
        (["[a:b]", LOGIN, AUDIENCE], "", "not TOML"),
        (['["a:b"]', LOGIN, AUDIENCE], ":1: [a:b]", "name of a table"),
        ([LOGIN], ": [issuer]", "not a table"),
        (["[a]", LOGIN, AUDIENCE, 'name = "b"'], ":1: [a]", "name is not a key"),
        ([], "", "no issuer"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_table(
    tmp_path: Path, lines: list[str], place: str, words: str
) -> None:
    path = _file(tmp_path, *lines)
    with pytest.raises(PeopleError) as refusal:
        read_issuers(path)
    assert str(refusal.value).startswith(f"{path}{place}")
    assert words in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PeopleError, match=r"none\.toml: cannot be read"):
        read_issuers(tmp_path / "none.toml")


def test_every_key_of_a_table_is_documented() -> None:
    table = (ROOT / "docs" / "openid-connect.md").read_text().partition("## Keys of a table")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
    assert documented == set(Issuer.__struct_fields__) - {"name"}


def test_every_example_of_an_issuers_file_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "openid-connect.md").read_text()
    examples = re.findall(r"```toml issuers\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        assert read_issuers(_file(tmp_path, example))


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example.org/oidc/", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]/", True),
        ("http://localhost/realms/a", True),
        ("http://login.example.org", False),
        ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
        ("https://", False),
        ("file:///etc/passwd", False),
        ("//login.example.org", False),
        ("http://[::1", False),
    ],
)
def test_tokens_leave_this_machine_by_tls_alone(url: str, safe: bool) -> None:
    assert is_safe(url) is safe
