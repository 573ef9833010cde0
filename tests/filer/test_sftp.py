"""SFTP: who is let in, which host is trusted, and what breaks on the way."""

from pathlib import Path

import pytest

from tesk.filer.schemes.sftp.ssh import SftpTarget, target_of
from tesk.tes import Input, Output
from tests.filer.cutting import relay
from tests.filer.stores import Places, fetch, push, tree, write
from tests.servers.sftp import sftp_server
from tests.servers.sshd import Sshd

SECRET = "p@ss/w:rd"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("sftp://h/a/b", SftpTarget("h", 0, "", "", b"/a/b")),
        ("sftp://me:p%40ss@h:2222/a%20b?c#d", SftpTarget("h", 2222, "me", "p@ss", b"/a b?c#d")),
        ("sftp://h/~/x/y/", SftpTarget("h", 0, "", "", b"x/y")),
        ("sftp://h/~", SftpTarget("h", 0, "", "", b".")),
        ("sftp://[::1]:22/%FF", SftpTarget("::1", 22, "", "", b"/\xff")),
        ("sftp://h/", SftpTarget("h", 0, "", "", b"/")),
    ],
)
def test_urls_are_absolute_but_for_the_tilde(url: str, target: SftpTarget) -> None:
    assert target_of(url) == target


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def credentials(root: Path, text: str) -> tuple[str, ...]:
    (root.parent / "stores.toml").write_text(text)
    return (str(root.parent / "stores.toml"),)


def test_a_server_of_passwords_and_no_extensions_both_ways(root: Path) -> None:
    write(root, {"out/a b": b"1", "out/é/empty": None})
    with sftp_server(root.parent / "served", "mé", SECRET) as (port, fingerprint):
        write(root.parent, {"served/d/a b": b"older and longer"})
        told = credentials(
            root, f'["sftp://127.0.0.1:{port}"]\nuser = "mé"\npassword = "{SECRET}"\nhost_key = "{fingerprint}"\n'
        )
        report = push(root, Output("/out", f"sftp://127.0.0.1:{port}/d"), credentials=told)
        assert report.ok, report.failure
        assert tree(root.parent / "served/d") == {"a b": b"1", "é": None, "é/empty": None}
        report = fetch(root, Input("/in", url=f"sftp://127.0.0.1:{port}/~/d"), credentials=told)
        assert report.ok, report.failure
    assert tree(root / "in") == tree(root / "out")


def test_a_connection_serves_the_prefix_alone_whose_login_made_it(root: Path) -> None:
    """The second prefix has a password that the server refuses: the first one's connection would do without."""
    with sftp_server(root.parent / "served", "me", SECRET) as (port, fingerprint):
        write(root.parent, {"served/one/f": b"1", "served/two/f": b"2"})
        here, host = f"sftp://127.0.0.1:{port}/~", f'user = "me"\nhost_key = "{fingerprint}"\n'
        told = credentials(
            root,
            f'["{here}/one"]\npassword = "{SECRET}"\n{host}["{here}/two"]\npassword = "another"\n{host}',
        )
        assert fetch(root, Input("/1", url=f"{here}/one/f"), credentials=told).ok
        both = [Input("/a", url=f"{here}/one/f"), Input("/b", url=f"{here}/two/f")]
        report = fetch(root, *both, credentials=told, concurrency=1)
    assert report.failure.startswith(f"input {here}/two/f: access denied")


def test_a_wrong_password_is_told_without_it(root: Path) -> None:
    with sftp_server(root.parent / "served", "me", SECRET) as (port, _):
        told = credentials(root, f'["sftp://127.0.0.1:{port}"]\nhost_key = "any"\n')
        report = fetch(root, Input("/f", url=f"sftp://me:wr0ng@127.0.0.1:{port}/f"), credentials=told, retries=3)
    assert (
        f"access denied (Permission denied for user me on host 127.0.0.1) by sftp://127.0.0.1:{port}" in report.failure
    )
    assert "after 1 try; check user, password and key" in report.failure
    assert "wr0ng" not in repr(report.events)


def test_an_unknown_host_is_not_given_a_password(root: Path) -> None:
    with sftp_server(root.parent / "served", "me", SECRET) as (port, _):
        report = fetch(root, Input("/f", url=f"sftp://me:{SECRET.replace('/', '%2F')}@127.0.0.1:{port}/f"), retries=3)
    assert f"the host key of sftp://127.0.0.1:{port} is unknown" in report.failure
    assert "after 1 try; add it to known_hosts, or set host_key in the credentials" in report.failure


def test_key_and_known_hosts_of_the_credentials(root: Path, ssh: Sshd) -> None:
    (root.parent / "key").write_text(ssh.key)
    (root.parent / "hosts").write_text(ssh.known_hosts)
    told = credentials(
        root,
        f'["sftp://127.0.0.1:{ssh.port}/"]\nuser = "{ssh.user}"\n'
        'private_key_file = "key"\nknown_hosts_file = "hosts"\n',
    )
    write(root.parent, {"f": b"the bytes"})
    report = fetch(root, Input("/f", url=f"sftp://127.0.0.1:{ssh.port}{root.parent}/f"), credentials=told)
    assert report.ok, report.failure
    assert tree(root) == {"f": b"the bytes"}


def test_host_port_and_user_of_the_ssh_configuration(root: Path, ssh: Sshd) -> None:
    ssh.settle(root.parent / "home")
    (root.parent / "home/.ssh/config").write_text(
        f"Host lab\n  HostName 127.0.0.1\n  Port {ssh.port}\n  User {ssh.user}\n"
    )
    write(root.parent, {"f": b"the bytes"})
    report = fetch(root, Input("/f", url=f"sftp://lab{root.parent}/f"))
    assert report.ok, report.failure
    assert tree(root) == {"f": b"the bytes"}


@pytest.mark.parametrize("size", [100_000, 30_000_000])
def test_a_connection_that_is_cut_twice_gives_the_same_bytes(root: Path, ssh: Sshd, size: int) -> None:
    content = bytes(range(251)) * (size // 251)
    write(root.parent, {"f": content})
    with relay(ssh.port, after_bytes=size // 2, times=2) as way:
        ssh._replace(port=way.port, known_hosts=ssh.known_hosts.replace(str(ssh.port), str(way.port))).settle(
            root.parent / "home"
        )
        base = f"sftp://{ssh.user}@127.0.0.1:{way.port}{root.parent}"
        report = fetch(root, Input("/f", url=f"{base}/f"))
        assert report.ok, report.failure
        assert way.cuts == 2
    with relay(ssh.port, after_bytes=size // 2, times=2) as way:
        (root.parent / "home/.ssh/known_hosts").write_text(ssh.known_hosts.replace(str(ssh.port), str(way.port)))
        report = push(root, Output("/f", f"sftp://{ssh.user}@127.0.0.1:{way.port}{root.parent}/g"))
        assert report.ok, report.failure
        assert way.cuts == 2
    assert (root / "f").read_bytes() == (root.parent / "g").read_bytes() == content


def test_a_connection_that_stalls_is_given_up_and_made_anew(root: Path, ssh: Sshd) -> None:
    write(root.parent, {"f": bytes(3_000_000)})
    with relay(ssh.port, after_bytes=1_000_000, times=1, stalls=True) as way:
        known = ssh.known_hosts.replace(str(ssh.port), str(way.port))
        ssh._replace(known_hosts=known).settle(root.parent / "home")
        url = f"sftp://{ssh.user}@127.0.0.1:{way.port}{root.parent}/f"
        report = fetch(root, Input("/f", url=url), timeout_s=10)
        assert report.ok, report.failure
        assert way.cuts == 1
    assert (root / "f").read_bytes() == bytes(3_000_000)


def test_what_is_not_allowed_is_told_at_once(places: Places) -> None:
    write(places.root, {"f": b"x"})
    write(places["sftp"].folder, {"is-a-file": b""})
    failure = places.push(Output("/f", places["sftp"].url("is-a-file/f")), retries=5).failure
    assert failure.endswith("after 1 try; use another path") or "after 1 try; check" in failure
    assert tree(places["sftp"].folder) == {"is-a-file": b""}
