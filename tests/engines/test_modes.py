"""Programs that look at who owns their files, and who else may change them, take a task's inputs as they are."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.engines.running import Tesk, content, sh
from tests.servers.containers import NOBODY_IMAGE
from tests.servers.programs import bundle

CONFIGURATION = "[client]\nuser = alice\n"


@pytest.fixture
def programs(shared: Path) -> str:
    return bundle(shared / "programs", "ssh-keygen", "git", "my_print_defaults")


async def test_ssh_mysql_and_git_take_what_is_an_executors_own(tesk: Tesk, shared: Path, programs: str) -> None:
    """Until the last executor any user may read and change all inputs. That one makes them its own where it may: ssh
    wants a key that nobody else can read, MySQL files that not everybody can write, git folders of its user's."""
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-C", "", "-f", shared / "key"], check=True)
    git = ["git", "-C", str(shared / "repository")]
    subprocess.run(["git", "init", "-q", str(shared / "repository")], check=True)
    subprocess.run(
        [*git, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "c", "--allow-empty"], check=True
    )
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    (shared / "old").touch()
    for path in ("repository/.git/HEAD", "old"):
        os.utime(shared / path, (1_000_000_000, 1_000_000_000))
    key = (shared / "key").read_text()
    public = " ".join((shared / "key.pub").read_text().split()[:2])
    first = f"""set -e; for file in /in/key /in/my.cnf /in/repository/.git/config; do echo >> $file; done
        echo > /in/repository/another; chmod 664 /in/repository/another
        mv /in/key /in/moved; mv /in/moved /in/key; {programs}/ssh-keygen -yf /in/key"""
    last = f"""{programs}/ssh-keygen -yf /in/key; {programs}/git -C /in/repository rev-parse HEAD
        {programs}/my_print_defaults --defaults-file=/in/my.cnf client; {programs}/ssh-keygen -yf /root/.ssh/id
        {programs}/my_print_defaults --defaults-file=/etc/my.cnf client
        stat -c %Y /in/repository/.git/HEAD /etc/old
        stat -c '%a %u' /in/key /in/my.cnf /in/repository/.git/HEAD /in/repository /in/repository/another"""
    task = await tesk.run(
        inputs=[
            content("/in/key", key),
            content("/in/my.cnf", CONFIGURATION),
            content("/root/.ssh/id", key),
            content("/etc/my.cnf", CONFIGURATION),
            {"path": "/etc/old", "url": f"{shared}/old"},
            {"path": "/in/repository", "url": f"{shared}/repository"},
            {"path": "/programs", "url": f"{shared}/programs"},
        ],
        outputs=[{"path": "/in", "url": f"{shared}/out"}],
        executors=[{**sh(first), "image": NOBODY_IMAGE}, sh(last)],
    )
    assert task["state"] == "COMPLETE", str(task["logs"])
    logs = task["logs"][0]["logs"]
    assert logs[0]["stdout"].split("\n")[0].strip() == public
    ours = f"{public}\n{head}--user=alice\n"
    assert logs[1]["stdout"].replace(" \n", "\n") == f"{ours}{public}\n--user=alice\n" + (
        "1000000000\n1000000000\n700 0\n755 0\n644 0\n777 0\n664 65534\n"
    ), str(logs[1])
    assert (shared / "out/key").read_text() == f"{key}\n"
