"""Where transfers may go: a table of addresses, and the ways that lead there."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tesk.filer.errors import TransferError
from tesk.filer.reach import Reach
from tesk.tes import Input, Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import fetch, push, tree, write

PUBLIC, PRIVATE, METADATA = "8.8.8.8", "10.1.2.3", "169.254.169.254"


@pytest.mark.parametrize(
    ("allow", "deny", "host", "address", "from_public", "refused"),
    [
        ((), (), "a.org", PUBLIC, False, ""),
        ((), (), "a.org", PRIVATE, False, ""),
        ((), (), "a.org", PUBLIC, True, ""),
        ((), (), "a.org", PRIVATE, True, "private address"),
        ((), (), "a.org", "127.0.0.1", True, "private address"),
        ((), (), "a.org", "::1", True, "private address"),
        ((), (), "a.org", "169.254.7.7", True, "credentials"),
        ((), (), "a.org", "fe80::1", True, "credentials"),
        ((), (), "a.org", "fec0::1", True, "private address"),
        ((), (), "a.org", "2002:0a01:0203::1", True, "private address"),  # 6to4
        ((), (), "a.org", "2002:0808:0808::1", True, ""),
        ((), (), "a.org", f"::{PRIVATE}", True, "private address"),
        ((), (), "a.org", "::", True, "private address"),
        ((), (), "a.org", METADATA, False, "credentials"),
        ((), (), "a.org", f"::ffff:{METADATA}", False, "credentials"),
        ((), (), "a.org", "64:ff9b::a9fe:a9fe", False, "credentials"),
        ((), (), "a.org", "64:ff9b:1::a9fe:a9fe", False, "credentials"),
        ((), (), "a.org", f"::{METADATA}", False, "credentials"),
        ((), (), "a.org", "2002:a9fe:a9fe::", False, "credentials"),
        ((), (), "a.org", "168.63.129.16", False, "credentials"),  # Azure's WireServer
        ((), (), "a.org", "fd00:ec2::254", False, "credentials"),
        ((), (), "a.org", "169.254.0.23", False, "credentials"),
        ((), (), "a.org", "169.254.42.42", False, "credentials"),
        ((), (), "a.org", "169.255.0.1", False, ""),
        ((), (), "a.org", "::ffff:169.254.0.23", False, "credentials"),
        ((), (), "a.org", "::ffff:0:169.254.0.23", False, "credentials"),
        ((), (), "a.org", "64:ff9b::169.254.42.42", False, "credentials"),
        ((), (), "a.org", "2002:a9fe:2a2a::1", False, "credentials"),
        ((), (), "a.org", "2001:0:808:808::5601:d5d5", False, "credentials"),  # Teredo
        ((), (), "a.org", "fe80::a", False, "credentials"),
        ((), (), "a.org", "febf::1", False, "credentials"),
        ((), (), "a.org", "fd00:42::42", False, "credentials"),
        ((), (), "a.org", "fd00:42::43", False, ""),
        (("169.254.20.0/24",), (), "a.org", "169.254.20.10", False, ""),
        (("169.254.20.0/24",), (), "a.org", METADATA, False, "credentials"),
        (("a.org",), (), "a.org", "169.254.20.10", False, "credentials"),
        (("fe80::/10",), (), "a.org", "fe80::a", False, ""),
        ((), ("64:ff9b::/96",), "a.org", "64:ff9b::808:808", False, "must not reach"),
        (("a.org",), (), "a.org", METADATA, False, "credentials"),
        ((METADATA,), (), "a.org", METADATA, False, ""),
        (("a.org",), (), "A.org.", PUBLIC, False, ""),
        (("a.org",), (), "b.a.org", PUBLIC, False, "not among"),
        ((".a.org",), (), "c.b.a.org", PUBLIC, False, ""),
        (("*.a.org",), (), "b.a.org", PUBLIC, False, ""),
        ((".a.org",), (), "a.org", PUBLIC, False, "not among"),
        (("8.8.0.0/16",), (), "a.org", PUBLIC, False, ""),
        (("10.0.0.0/8", "a.org"), (), "b.org", PRIVATE, True, ""),
        ((), ("10.0.0.0/8",), "a.org", PRIVATE, False, "must not reach"),
        ((), ("10.0.0.0/8",), "a.org", f"::ffff:{PRIVATE}", False, "must not reach"),
        ((), ("[fd00::]/8",), "a.org", "fd00::7", False, ""),  # not a network: taken as a name
        ((), ("fd00::/8",), "a.org", "fd00::7", False, "must not reach"),
        (("a.org",), ("a.org",), "a.org", PUBLIC, False, "must not reach"),
    ],
)
def test_hosts_are_judged_by_name_and_address(
    allow: tuple[str, ...], deny: tuple[str, ...], host: str, address: str, from_public: bool, refused: str
) -> None:
    refusal = Reach(allow, deny).refusal(host, ipaddress.ip_address(address), from_public=from_public)
    assert refused in refusal
    assert bool(refused) == bool(refusal)


def test_a_name_is_connected_to_by_an_address_that_may_be_reached() -> None:
    assert set(Reach(deny=("::1",)).resolve("localhost", 80)) == {"127.0.0.1"}
    with pytest.raises(TransferError, match=r"localhost \(.*\) is among the hosts"):
        Reach(deny=("127.0.0.0/8", "::1")).resolve("localhost", 80)


@pytest.mark.parametrize("url", [f"http://{METADATA}/latest", f"ftp://{METADATA}/latest", "http://[fd00:ec2::254]/x"])
def test_the_cloud_s_credentials_are_out_of_reach(tmp_path: Path, url: str) -> None:
    write(tmp_path, {"f": b""})
    for report in (fetch(tmp_path, Input("/in", url=url)), push(tmp_path, Output("/f", url))):
        assert "is where a cloud hands out credentials, which tasks must not reach" in report.failure


def test_denied_hosts_are_refused_also_behind_a_redirect(tmp_path: Path) -> None:
    with faulty(lambda c, _n, _h: c.sendall(answer("200 OK", b"bytes"))) as inner:
        elsewhere = inner.url.replace("127.0.0.1", "localhost")
        redirect = answer("302 Found", b"", f"Location: {elsewhere}/x")
        with faulty(lambda c, _n, _h: c.sendall(redirect)) as outer:
            assert fetch(tmp_path, Input("/f", url=f"{outer.url}/f")).ok
            for rule in ({"deny": ("localhost",)}, {"allow": ("10.0.0.0/8",)}):
                failure = fetch(tmp_path, Input("/g", url=f"{outer.url}/f"), **rule).failure
                assert "transfer_deny" in failure or "transfer_allow" in failure
            assert fetch(tmp_path, Input("/h", url=f"{outer.url}/f"), allow=("127.0.0.0/8",)).ok
        assert len(inner.requests) == 2
    assert set(tree(tmp_path)) == {"f", "h"}


def from_public(folder: Path, way: str) -> tuple[str, str]:
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    command = [*apart, sys.executable, "-m", "tests.filer.public", str(folder), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    failure, asked = done.stdout.splitlines()
    return failure, asked


@pytest.mark.parametrize("way", ["302 Found", "307 Temporary Redirect", "drs", "drs with headers"])
def test_a_public_server_does_not_lead_to_a_private_one(tmp_path: Path, way: str) -> None:
    failure, asked = from_public(tmp_path, way)
    assert "is a private address, to which a public server must not redirect" in failure
    assert asked == "0"


def test_a_name_of_a_public_drs_server_is_public_at_each_of_its_addresses(tmp_path: Path) -> None:
    failure, asked = from_public(tmp_path, "drs by name")
    assert "http://both.test" in failure
    assert "cannot be reached" in failure
    assert asked == "0"


def test_the_endpoint_of_s3_is_judged_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"f": b"x"})
    with faulty(lambda c, _n, _h: c.sendall(answer("404 Not Found", b""))) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        assert "not found" in fetch(tmp_path, Input("/in", url="s3://bucket/key")).failure
        asked = len(store.requests)
        for report in (
            fetch(tmp_path, Input("/in", url="s3://bucket/key"), deny=("127.0.0.0/8",)),
            push(tmp_path, Output("/f", "s3://bucket/key"), deny=("127.0.0.0/8",)),
        ):
            assert "transfer_deny" in report.failure
        assert len(store.requests) == asked
