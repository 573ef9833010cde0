"""The shim as a process: in a root folder and a process namespace of its own, as in a container, but with no engine."""

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.shim.containers import NOBODY, PATH, PATIENCE_S, SHIM, Container, Ended, first_of, until


@pytest.fixture
def container(tmp_path: Path) -> Container:
    root = tmp_path / "root"
    root.mkdir()
    tmp_path.chmod(0o755)
    return Container(root)


FINDS = """
busybox tr '\\0' '\\n' < /proc/$$/environ; echo ---
grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status
busybox awk '{print ($6 == '$$'), ($5 == '$$')}' /proc/$$/stat
ls /proc/self/fd | busybox wc -l
echo $0 $(umask) $(pwd); cat
"""


def test_a_program_finds_what_it_would_find_without_a_shim(container: Container) -> None:
    """Started with signals that are ignored and blocked, as a careless parent may."""
    env = PATH | {
        "a.b": "1",
        "X-Y": "2 3",
        "file": "f",
        "workdir": "w",
        "OLDPWD": "/o",
        "SHLVL": "7",
        "n\u00fc": "\u00fc\n",
    }
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        found = container.run("sh", "-c", FINDS, "first", env=env, copies=("e1 x=$y", "i/none"))
    finally:
        signal.signal(signal.SIGINT, before)
    environment, _, rest = found.out.partition("---\n")
    expected = [f"{key}={value}" for key, value in (env | {"1 x": "$y"}).items()]
    assert sorted(environment.splitlines()) == sorted("\n".join(expected).splitlines())
    signals, (session, descriptors, last) = rest.splitlines()[:3], rest.splitlines()[3:]
    assert [line.split() for line in signals] == [[f"Sig{n}:", "0" * 16] for n in ("Blk", "Ign", "Cgt")]
    assert (session, descriptors, last) == ("1 1", "4", "first 0022 /")
    assert (found.code, found.marks) == (0, {"started": "", "ended": "0\n"})


CODES: list[tuple[list[str], int, str]] = [
    (["true"], 0, ""),
    (["sh", "-c", "exit 255"], 255, ""),
    (["sh", "-c", "kill -9 $$"], 137, ""),
    (["sh", "-c", "kill -INT $$"], 130, ""),
    (["sh", "-c", "kill -USR1 $$"], 138, ""),
    (["no-such"], 127, "tesk: no-such: no such program on the image's PATH\n"),
    (["/no/such"], 127, "tesk: /no/such: no such program in the image\n"),
    (["/etc"], 126, "tesk: /etc: is a directory, not a program\n"),
    (["/etc/not-executable"], 126, "tesk: /etc/not-executable: not executable by user 0\n"),
    (["plain"], 126, "tesk: /bin/plain: not executable by user 0\n"),
    (["/opt/script", "a b"], 3, "/opt/script a b\n"),
    (["/opt/strange"], 127, "tesk: /opt/strange: the image lacks the interpreter or dynamic loader that it names\n"),
    (["/opt/foreign"], 126, "tesk: /opt/foreign: not made for this machine's processor\n"),
]


@pytest.mark.parametrize(("command", "code", "words"), CODES)
def test_exit_codes_are_the_programs_or_the_shells(
    container: Container, command: list[str], code: int, words: str
) -> None:
    (container.root / "opt").mkdir()
    for name, data in (
        ("opt/script", b'echo "$0 $1" >&2; exit 3\n'), ("opt/strange", b"#!/no/such\n"), ("bin/plain", b""),
        ("opt/foreign", b"\x7fELF\2\1\1" + bytes(100)),
    ):  # fmt: skip
        (container.root / name).write_bytes(data)
        (container.root / name).chmod(0o644 if name == "bin/plain" else 0o755)
    ended = container.run(*command)
    assert (ended.code, ended.err, ended.marks["ended"]) == (code, words, f"{code}\n")


ZOMBIES = "grep -q ^State:.Z /proc/[0-9]*/status"
WAITS = "echo begun; while :; do usleep 10000; done"
ENDS = f"""
busybox setsid sh -c 'trap "echo own session; exit" TERM; {WAITS}' &
sh -c 'trap "echo child; exit" TERM; {WAITS}' &
trap 'echo program; wait; exit 5' TERM
{WAITS}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH])
def test_the_engines_signal_is_a_term_for_the_program_and_all_it_started(
    container: Container, number: signal.Signals
) -> None:
    """Whichever signal the image asks for (STOPSIGNAL)."""
    process = container.start("run", "", "", "", "", "0", "sh", "-c", ENDS)
    until(lambda: process.poll() is not None or (container.root / ".tesk/control/stdout").read_text() == "begun\n" * 3)
    os.kill(first_of(process.pid), number)
    ended = container.ended(process)
    assert (ended.code, ended.marks) == (5, {"started": "", "terminated": "", "ended": "5\n"})
    assert sorted(ended.out.splitlines()) == [*["begun"] * 3, "child", "own session", "program"]


def test_behind_another_first_process_it_reaps_and_is_told_as_well(container: Container) -> None:
    """As of an engine that starts an init of its own, or an image's entry point."""
    init = 'trap "kill -TERM \\$!" TERM; "$@" & wait $!; wait $!'
    script = f"sh -c 'true & exec true'; sh -c 'sleep 0 & exit'; sh -c 'trap \"echo child; exit\" TERM; {WAITS}' & "
    script += f"trap 'wait; while {ZOMBIES}; do usleep 10000; done; exit 5' TERM; {WAITS}"
    words = ("run", "", "", "", "", "0", "sh", "-c", script)
    process = container.start(*words, entry=("/bin/sh", "-c", init, "init"))
    out = container.root / ".tesk/control/stdout"
    until(lambda: process.poll() is not None or out.read_text() == "begun\n" * 2)
    os.kill(first_of(process.pid), signal.SIGTERM)
    ended = container.ended(process)
    assert (ended.code, ended.out) == (5, "begun\nbegun\nchild\n")
    assert ended.marks == {"started": "", "terminated": "", "ended": "5\n"}


def test_a_signal_from_inside_is_the_programs_own(container: Container) -> None:
    ended = container.sh("trap 'echo got; exit 4' USR1; kill -USR1 1; sleep 100 & wait")
    assert (ended.code, ended.out, "terminated" in ended.marks) == (4, "got\n", False)


def test_orphans_are_reaped_and_do_not_hold_the_end(container: Container) -> None:
    script = (
        "for n in 1 2 3; do sh -c 'true & exec true'; sh -c 'sleep 0 & exit'; done; sleep 1;"
        f"while {ZOMBIES}; do usleep 10000; done; (sleep 1000; echo late) & echo done"
    )
    ended = container.sh(script)
    assert (ended.code, ended.out) == (0, "done\n")


HOSTILE = [
    "ln -s /etc/image-file $0",
    "ln -s /missing $0",
    "mkfifo $0",
    "mkdir $0; mkdir $0/a; touch $0/a/b; chmod 0 $0",
]


@pytest.mark.parametrize("script", HOSTILE)
def test_what_a_program_puts_in_place_of_a_mark_is_replaced(container: Container, script: str) -> None:
    words = [
        "sh",
        "-c",
        f"cd /.tesk/control; rm -f started; for m in ended oom terminated; do sh -c '{script}' $m; done",
    ]
    (container.root / "sys/fs/cgroup/memory.events").write_text("oom 3\noom_kill 1\n")
    ended = container.run(*words)
    assert (ended.code, ended.marks["ended"], ended.marks["oom"]) == (0, "0\n", "")
    for name in ("ended", "oom"):
        assert stat.S_ISREG(os.lstat(container.root / ".tesk/control" / name).st_mode)
    assert (container.root / "etc/image-file").read_text() == "from the image\n"
    assert not (container.root / "missing").exists()


@pytest.mark.parametrize(
    ("file", "text", "killed"),
    [
        ("memory.events", "low 0\noom 2\noom_kill 0\noom_group_kill 5\n", False),
        ("memory.events", "low 0\noom_kill 12\n", True),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", True),
        ("memory/memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", False),
    ],
)
def test_the_kernels_killing_for_want_of_memory_is_seen(
    container: Container, file: str, text: str, killed: bool
) -> None:
    path = container.root / "sys/fs/cgroup" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert ("oom" in container.run("true").marks) == killed


def test_streams_are_files_that_are_made_with_their_folders(container: Container) -> None:
    (container.root / "out/e").write_text("old and longer than what is new\n")
    ended = container.sh("echo a; echo b >&2; cat", stdin="/etc/image-file", stdout="/out/d/e/o", stderr="/out/e")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (container.root / "out/d/e/o").read_text() == "a\nfrom the image\n"
    assert (container.root / "out/e").read_text() == "b\n"


@pytest.mark.parametrize(
    ("options", "ended", "words"),
    [
        ({"stdout": "/proc/x"}, "1\n", "tesk: cannot write /proc/x: No such file or directory\n"),
        ({"stdout": "/out"}, "1\n", "tesk: cannot write /out: Is a directory\n"),
        ({"stdout": "/pipe"}, "1\n", "tesk: cannot write /pipe: No such device or address\n"),
        ({"stderr": "/out"}, "1\n", "tesk: cannot write /out: Is a directory\n"),
        ({"stdin": "/no/file"}, "1\n", "tesk: cannot read /no/file for stdin: No such file or directory\n"),
        ({"stdin": "/out"}, "1\n", "tesk: cannot read /out for stdin: Is a directory\n"),
        ({"stdin": "/pipe"}, "0\n", ""),
        ({"workdir": "/made/for/me"}, "0\n", ""),
        ({"workdir": "/etc/image-file/x"}, "1 workdir\n", ""),
    ],
)
def test_a_stream_or_folder_that_cannot_be_is_named(
    container: Container, options: dict[str, Any], ended: str, words: str
) -> None:
    os.mkfifo(container.root / "pipe")
    found = container.run("cat", **options)
    assert (found.marks["ended"], found.err) == (ended, words)
    assert ("started" in found.marks) == (ended == "0\n")


TREE = """
mkdir -p /opt/d/empty /opt/d/closed; cd /opt/d
echo a > file; chmod 4751 file; ln file second; ln -s ../nowhere link; mkfifo pipe
busybox truncate -s 100M sparse; echo end >> sparse
echo c > closed/c; touch -d '2001-02-03 04:05:06' file closed; chmod 2755 closed
touch "$(printf 'a\\377b')" .hidden
"""


def test_copies_of_a_folder_keep_what_is_in_it(container: Container) -> None:
    socket.socket(socket.AF_UNIX).bind(str(container.root / "etc/socket"))
    ended = container.sh(TREE + "mv /etc/socket .", copies=("o/opt/d",))
    assert (ended.code, ended.err) == (0, "")
    kept, again = container.root / ".tesk/files/opt/d", container.root / "opt/d"
    first = listing(kept)
    assert first["file"] == (stat.S_IFREG | 0o4755, 981173106, 2, 2)
    assert first["link"][0] == stat.S_IFLNK | 0o777
    assert stat.S_ISFIFO(first["pipe"][0])
    assert stat.S_ISSOCK(first["socket"][0])
    assert (first["closed"][0], first["closed"][1]) == (stat.S_IFDIR | 0o2755, 981173106)
    assert os.lstat(kept / "file").st_ino == os.lstat(kept / "second").st_ino
    assert os.lstat(kept / "sparse").st_blocks < 1000
    assert b"a\xffb" in os.listdir(os.fsencode(kept))
    subprocess.run(["rm", "-r", again], check=True)
    ended = container.sh("cat /opt/d/file /opt/d/closed/c", copies=("o/opt/d",))
    assert (ended.code, ended.out, ended.err) == (0, "a\nc\n", "")
    assert listing(again) == first


def listing(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Mode, time of change, links and size of everything in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = os.lstat(path)
        is_file = stat.S_ISREG(status.st_mode)
        found[str(path.relative_to(folder))] = (
            status.st_mode, int(status.st_mtime) if path.name in ("file", "closed") else 0,
            status.st_nlink if is_file else 0, status.st_size if is_file else 0,
        )  # fmt: skip
    return found


PATTERNS = [
    ("/*.txt", {"a.txt", "b c.txt", "\u00fc.txt"}),
    ("/?.txt", {"a.txt", "\u00fc.txt"}),
    ("/[!a].txt", {"\u00fc.txt"}),
    ("/[[:alpha:]].txt", {"a.txt", "\u00fc.txt"}),
    ("/.*", {".hid"}),
    ("/a[1].x", {"a[1].x"}),
    ("/a\\[1\\].x", {"a[1].x"}),
    ("/\\*", {"*"}),
    ("/d/*", {"d/f"}),
    ("/nothing*", set()),
]


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS)
def test_outputs_are_found_by_their_patterns(container: Container, pattern: str, expected: set[str]) -> None:
    script = "mkdir /d; cd /; for f in a.txt 'b c.txt' \u00fc.txt .hid 'a[1].x' '*' d/f; do echo x > \"$f\"; done"
    assert container.sh(script, copies=(f"o{pattern}",)).code == 0
    kept = container.root / ".tesk/files"
    assert {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()} == expected


def test_copies_of_an_earlier_executor_replace_what_the_image_has(container: Container) -> None:
    kept = container.root / ".tesk/files"
    (kept / "etc/new").mkdir(parents=True)
    (kept / "etc/image-file").write_text("short\n")
    (kept / "etc/new/f").write_text("f\n")
    (kept / "etc/log").write_text("never\n")
    (container.root / "etc/linked").mkdir()
    (kept / "lib").mkdir()
    (kept / "lib/x").write_text("x\n")
    (container.root / "lib").symlink_to("etc/linked")
    before = (container.root / "etc").stat().st_mode
    ended = container.sh(
        "cat /etc/image-file /etc/new/f /etc/linked/x; ls /etc/passwd",
        copies=("i/etc", "i/lib", "o/etc/lo*", "i/missing"), stdout="/etc/log",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert (container.root / "etc/log").read_text() == "short\nf\nx\n/etc/passwd\n"
    assert (container.root / "etc").stat().st_mode == before
    assert container.sh("cat /etc/linked/x", copies=("i/",)).out == "x\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_file_that_cannot_be_replaced_is_written_in_its_place(container: Container) -> None:
    (container.root / "etc/image-file").chmod(0o666)
    (container.root / ".tesk/files/etc").mkdir()
    (container.root / ".tesk/files/etc/image-file").write_text("new\n")
    ended = container.run("cat", "/etc/image-file", copies=("i/etc",), user=NOBODY)
    assert (ended.code, ended.out, ended.err) == (0, "new\n", "")


def test_an_output_that_cannot_be_copied_is_the_tasks_failure(container: Container) -> None:
    (container.root / ".tesk/files/opt").write_text("no folder\n")
    ended = container.sh("echo x > /opt/x; echo y > /y", copies=("o/opt/x", "o/y"))
    assert (ended.code, ended.marks["ended"]) == (1, "1\n")
    assert ended.err == "tesk: could not copy /opt/x to /.tesk/files/opt/x\n"
    assert (container.root / ".tesk/files/y").read_text() == "y\n"
    assert container.sh("exit 3", copies=("o/opt/x",)).code == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
@pytest.mark.parametrize("user", [0, NOBODY])
def test_inputs_that_every_user_may_change_become_its_own(container: Container, user: int) -> None:
    files = {"open": 0o777, "private": 0o1666, "closed": 0o600, "group": 0o664, "d/open": 0o666, "own": 0o666}
    (container.root / "out/d").mkdir()
    (container.root / "out/d").chmod(0o777)
    for name, mode in files.items():
        (container.root / "out" / name).touch()
        (container.root / "out" / name).chmod(mode)
        os.chown(container.root / "out" / name, NOBODY if name == "own" else 7, 7)
    (container.root / "out/link").symlink_to("/etc/image-file")
    (container.root / "etc/image-file").chmod(0o666)
    assert container.run("true", copies=("t/out", "t/missing"), user=user).code == 0
    found = {name: container.root / "out" / name for name in files}
    modes = {name: path.stat().st_mode & 0o7777 for name, path in found.items()}
    taken = {"open": 0o755, "private": 0o600, "d/open": 0o644} if user == 0 else {}
    assert modes == {**files, "own": 0o644, **taken}
    assert {name for name, path in found.items() if path.stat().st_uid == 0} == ({*taken, "own"} if taken else set())
    assert (container.root / "etc/image-file").stat().st_mode & 0o777 == 0o666


CLOSED = "umask 077; mkdir -p /out/d/e; echo x > /out/d/e/f; ln -s d/e/f /out/link; chown -R 7:7 /out/d /opt"


def test_as_root_outputs_of_another_user_become_readable(container: Container) -> None:
    (container.root / "opt").mkdir()
    ended = container.sh(f"echo x > /opt/x; {CLOSED}; chmod 600 /opt/x", copies=("r/out/link", "r/out/*/e", "o/opt/x"))
    assert (ended.code, ended.err) == (0, "")
    modes = {name: (container.root / name).stat().st_mode & 0o777 for name in ("out/d", "out/d/e", "out/d/e/f")}
    assert modes == {"out/d": 0o755, "out/d/e": 0o755, "out/d/e/f": 0o644}
    kept = (container.root / ".tesk/files/opt/x").stat()
    assert (kept.st_mode & 0o777, kept.st_uid) == (0o644, 7)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_what_another_user_cannot_open_is_told(container: Container) -> None:
    (container.root / "out/theirs").write_text("x\n")
    (container.root / "out/theirs").chmod(0o600)
    script = "umask 077; mkdir /out/d; echo x > /out/d/f; chmod 0 /out/d/f; chmod 300 /out/d"
    ended = container.sh(script, copies=("r/out/d", "r/out/theirs"), user=NOBODY)
    assert (ended.code, (container.root / "out/d/f").stat().st_mode & 0o777) == (0, 0o444)
    assert "tesk: cannot make readable for everybody /out/theirs: Operation not permitted\n" in ended.err
    assert "/out/theirs is closed to other users" in ended.err
    assert "chmod -R a+rX" in ended.err


def test_a_folder_is_emptied_however_deep_and_closed_it_is(container: Container) -> None:
    top, outside = container.root / "out", container.root / "outside"
    outside.mkdir()
    (outside / "stays").touch()
    script = "cd /out; mkdir a a/b c; touch a/f c/.g; ln -s /outside link; mkfifo p"
    assert container.sh(script).code == 0
    here = os.open(top / "a/b", os.O_RDONLY)
    for n in range(300):
        for name in ("d" * 200, f".tesk.{n}"):
            os.mkdir(name, dir_fd=here)
        os.symlink("/outside", "link", dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (top / "a").chmod(0)
    for command, words in (("open-up", "/out"), ("empty", "/out"), ("empty", "/missing")):
        process = container.start(command, words)
        assert (process.communicate(timeout=PATIENCE_S)[0], process.returncode) == (b"", 0)
    assert (list(top.iterdir()), list(outside.iterdir())) == ([], [outside / "stays"])


def test_a_folder_is_opened_to_every_user_but_nothing_outside_it(container: Container) -> None:
    script = "umask 077; mkdir /out/d; echo x > /out/d/f; echo y > /out/d/run; chmod 700 /out/d/run; ln -s /etc /out/l"
    assert container.sh(script + "; ln -s /etc/image-file /out/m").code == 0
    before = {name: (container.root / name).stat().st_mode for name in ("etc", "etc/image-file")}
    process = container.start("open-up", "/out")
    assert (process.communicate(timeout=PATIENCE_S)[0], process.returncode) == (b"", 0)
    modes = [(container.root / "out/d" / name).stat().st_mode & 0o777 for name in (".", "f", "run")]
    assert modes == [0o777, 0o666, 0o777]
    assert before == {name: (container.root / name).stat().st_mode for name in before}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_what_an_image_has_is_seen(container: Container) -> None:
    for name, mode in (("full/x", 0o755), ("empty", 0o755), ("open", 0o777), ("closed", 0o700)):
        (container.root / name).mkdir(parents=True)
        (container.root / name).chmod(mode)
    (container.root / "link").symlink_to("/nowhere")
    paths = ["/", "/none", "/full", "/full/x", "/empty", "/open", "/closed", "/link", "/etc/passwd", "/etc/passwd/x"]
    for user, digits in ((0, "7075555330"), (NOBODY, "3031153330")):
        process = container.start("look", "/out/answer", *paths, user=user)
        assert (process.communicate(timeout=PATIENCE_S)[0], process.returncode) == (b"", 0)
        assert (container.root / "out/answer").read_text() == f"{digits}\n"


def test_the_shim_copies_itself_and_tells_how_it_is_used(tmp_path: Path) -> None:
    subprocess.run([SHIM, "copy-to", tmp_path], check=True)
    copy = tmp_path / "shim"
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (SHIM.read_bytes(), 0o755)
    for words in ([], ["run"], ["run", "", "", "", "", "1", "x"], ["other", "x"]):
        made = subprocess.run([copy, *words], capture_output=True, text=True, check=False)
        assert (made.returncode, made.stderr.startswith("tesk: usage: run|wait WORKDIR")) == (2, True)


class Waiting:
    """A shim that waits for its turn, in a container. `say` writes to the pipe of its turn."""

    def __init__(self, container: Container, script: str, user: int = 0) -> None:
        self.container = container
        self.control = container.root / ".tesk/control"
        self.process = container.start("wait", "", "", "", "", "0", "sh", "-c", script, user=user)
        until((self.control / "turn").exists)
        self._pipe = os.open(self.control / "turn", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def say(self, orders: bytes) -> None:
        assert os.write(self._pipe, orders) == len(orders)

    def close(self) -> None:
        os.close(self._pipe)

    def begin(self) -> None:
        """Gives it its turn; returns when its program runs."""
        self.say(b"G")
        until(lambda: "begun" in (self.control / "stdout").read_text())

    def ended(self) -> Ended:
        return self.container.ended(self.process)


def test_a_program_waits_for_its_turn(container: Container) -> None:
    waiting = Waiting(container, "ls -a /.tesk/control; ls /proc/self/fd | busybox wc -l; exit 3")
    assert {path.name for path in waiting.control.iterdir()} == {"turn"}
    waiting.say(b"G")
    ended = waiting.ended()
    assert (ended.code, ended.out.split(), ended.err) == (3, [".", "..", "started", "stderr", "stdout", "4"], "")
    assert ended.marks == {"started": "", "ended": "3\n"}


@pytest.mark.parametrize("how", ["TERM", "T", "K", "closed"])
def test_before_its_turn_a_shim_can_be_ended(container: Container, how: str) -> None:
    waiting = Waiting(container, "echo ran")
    if how == "TERM":
        os.kill(first_of(waiting.process.pid), signal.SIGTERM)
    elif how == "closed":
        waiting.close()
    else:
        waiting.say(how.encode())
    ended = waiting.ended()
    assert (ended.code, ended.out, ended.marks) == (143, "", {})


def test_a_program_is_told_to_end_and_then_killed(container: Container) -> None:
    waiting = Waiting(container, "trap 'echo asked' TERM; sleep 1000 & echo begun; wait $!; sleep 1000; echo no")
    waiting.begin()
    waiting.say(b"T")
    until(lambda: "asked" in (waiting.control / "stdout").read_text())
    waiting.say(b"K")
    ended = waiting.ended()
    assert (ended.code, ended.out) == (137, "begun\nasked\n")
    assert ended.marks == {"started": "", "terminated": "", "ended": "137\n"}


def test_the_end_of_the_runner_kills_all_programs(container: Container) -> None:
    waiting = Waiting(container, "trap '' TERM; sleep 1000 & sleep 1000 & echo begun; wait; wait")
    waiting.begin()
    waiting.close()
    ended = waiting.ended()
    assert (ended.code, ended.marks["ended"]) == (137, "137\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_program_cannot_take_the_orders_of_its_shim(container: Container) -> None:
    """Neither by the pipe's name, which is gone, nor by the shim's descriptors."""
    waiting = Waiting(container, "trap '' TERM; ls /.tesk/control /proc/1/fd; echo begun; while :; do :; done", NOBODY)
    waiting.begin()
    waiting.say(b"K")
    ended = waiting.ended()
    assert (ended.code, ended.out) == (137, "/.tesk/control:\nstarted\nstderr\nstdout\n\n/proc/1/fd:\nbegun\n")
    assert "/proc/1/fd" in ended.err


def test_what_lies_where_the_pipe_is_to_be_makes_room(container: Container) -> None:
    control = container.root / ".tesk/control"
    (control / ".turn").mkdir()
    (control / "turn").symlink_to("/etc/image-file")
    process = container.start("wait", "", "", "", "", "0", "true")
    until(lambda: (control / "turn").is_fifo())
    pipe = os.open(control / "turn", os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"?\0G")
    assert container.ended(process).code == 0
    os.close(pipe)
