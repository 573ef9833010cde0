"""What an executor gets and gives, on every engine: arguments, environment, folders, streams, exit codes, paths."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from tesk.identity import SERVER
from tests.engines.gates import gates
from tests.engines.places import LOOKED_AT, LocalPlace, Place
from tests.engines.running import SHORT_S, Tesk, content, running, sh
from tests.servers.containers import APP_IMAGE, BARE_IMAGE, IMAGE, NOBODY_IMAGE, WORKER_IMAGE


def only(task: dict[str, Any]) -> dict[str, Any]:
    """The log of the task's only executor."""
    assert len(task["logs"]) == 1
    assert len(task["logs"][0]["logs"]) == 1, task
    log: dict[str, Any] = task["logs"][0]["logs"][0]
    return log


ARGUMENTS = ["a b", "", "$HOME", "$(HOME)", "$$", "*", "\\n", "'\"`", "ü", "-x", "--", "two\nlines", "%s"]


async def test_arguments_arrive_verbatim(tesk: Tesk) -> None:
    task = await tesk.run(executors=[{"image": IMAGE, "command": ["printf", "[%s]", *ARGUMENTS]}])
    assert only(task)["stdout"] == "".join(f"[{argument}]" for argument in ARGUMENTS)


async def test_a_long_argument_arrives_whole(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh('printf %s "$1" | wc -c')])
    assert only(task)["stdout"].strip() == "0"
    long = {"image": IMAGE, "command": ["sh", "-c", 'printf %s "$1" | wc -c', "sh", "x" * 120_000]}
    assert only(await tesk.run(executors=[long]))["stdout"].strip() == "120000"


async def test_an_image_without_a_shell_and_its_entrypoint_is_not_used(tesk: Tesk) -> None:
    task = await tesk.run(executors=[{"image": BARE_IMAGE, "command": ["cat", "/etc/image-file"]}])
    assert only(task)["stdout"] == "from the image\n"
    task = await tesk.run(executors=[{"image": NOBODY_IMAGE, "command": ["echo", "not false"]}])
    assert only(task)["stdout"] == "not false\n"


ENVIRONMENT = {
    "A": "b c", "EMPTY": "", "EQ": "x=y", "LINES": "1\n 2\n", "LD": "$PATH", "a.b": "1", "X-Y": "2", "1": "3",
    "e v": "4", "\u00fc": "\u00e4", "file": "f", "name": "n", "workdir": "w", "kept": "k", "IFS": "x",
    "OLDPWD": "/o", "SHLVL": "7", "LD_PRELOAD": "/no.so",
}  # fmt: skip
FINDS = """
echo "program $0 $1"
echo "first of its session and group: $(busybox awk '{print ($6 == '$$'), ($5 == '$$')}' /proc/$$/stat)"
grep -E '^(Sig(Blk|Ign|Cgt)|ShdPnd|Uid|Gid)' /proc/self/status
echo "descriptors $(ls /proc/self/fd | wc -l)" "stdin $(readlink /proc/self/fd/0) $(cat | wc -c)"
echo "umask $(umask) folder $(pwd) root $(ls / | grep -v made)" "nice $(busybox nice)"; ulimit -a
sh -c 'true & exec true'; sh -c 'sleep 0 & exit'; sleep 0.2
while grep -q '^State:.Z' /proc/[0-9]*/status; do sleep 0.1; done
echo environment; busybox tr '\\0' '\\n' < /proc/$$/environ | grep -v -E '^(HOSTNAME|KUBERNETES_)'
(sleep 1000; echo late) &
"""


async def test_a_program_finds_what_a_container_without_tesk_gives_it(tesk: Tesk, place: Place) -> None:
    """On a local engine all that it finds is compared with a container of the engine's own."""
    command = ["sh", "-c", FINDS, "first", "a b"]
    task = await tesk.run(executors=[{"image": IMAGE, "command": command, "env": ENVIRONMENT}])
    assert only(task)["exit_code"] == 0, task["logs"]
    found, _, environment = only(task)["stdout"].partition("environment\n")
    lines = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
    assert set(environment.splitlines()) >= set("\n".join(lines).splitlines()), environment
    for line in (
        "program first a b",
        "first of its session and group: 1 1",
        "umask 0022 folder /srv root bin",
        *(f"Sig{name}:\t" + "0" * 16 for name in ("Blk", "Ign", "Cgt")),
    ):
        assert line in found.splitlines(), found
    if isinstance(place, LocalPlace):
        alone, _, its_environment = (await alone_in(place, command)).partition("environment\n")
        assert found == alone
        assert sorted(environment.splitlines()) == sorted(its_environment.splitlines())


async def alone_in(place: LocalPlace, command: list[str]) -> str:
    """What a command writes to stdout in a container that tesk has nothing to do with."""
    env = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
    host = {"NetworkMode": "none"}
    async with aiodocker.Docker(url=f"unix://{place.socket}") as docker:
        body: dict[str, Any] = {"Image": IMAGE, "Cmd": command, "Entrypoint": [], "Env": env, "HostConfig": host}
        container = await docker.containers.create(body, name=f"alone-{uuid.uuid4().hex}")
        try:
            await container.start()
            await container.wait(timeout=SHORT_S)
            return "".join(await container.log(stdout=True))
        finally:
            await container.delete(force=True)


@pytest.mark.places(*LOOKED_AT)
@pytest.mark.parametrize("image", [IMAGE, NOBODY_IMAGE])
async def test_a_working_directory_is_made_and_can_be_written(tesk: Tesk, image: str) -> None:
    executor = {"image": image, "command": ["sh", "-c", "pwd; echo x > y && cat y"]}
    task = await tesk.run(executors=[{**executor, "workdir": "/made/for me"}])
    assert only(task)["stdout"] == "/made/for me\nx\n"


async def test_stdin_comes_from_a_file_of_the_task_or_of_the_image(tesk: Tesk) -> None:
    executors = [sh("cat", stdin="/in/a"), sh("cat", stdin="/etc/image-file")]
    task = await tesk.run(inputs=[content("/in/a", "hello")], executors=executors)
    assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["hello", "from the image\n"]


@pytest.mark.parametrize(
    ("stdout", "stderr"), [("/out/o", "/out/e"), ("/deep/er/o", "/etc/e"), ("/o.txt", "/usr/share/e")]
)
async def test_streams_go_to_files_and_to_the_log_apart(tesk: Tesk, shared: Path, stdout: str, stderr: str) -> None:
    task = await tesk.run(
        executors=[sh("echo one; echo two >&2; cat /etc/image-file", stdout=stdout, stderr=stderr)],
        outputs=[{"path": stdout, "url": f"{shared}/o"}, {"path": stderr, "url": f"{shared}/e"}],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert (only(task)["stdout"], only(task)["stderr"]) == ("one\nfrom the image\n", "two\n")
    assert ((shared / "o").read_text(), (shared / "e").read_text()) == ("one\nfrom the image\n", "two\n")


async def test_both_streams_may_share_a_file_and_the_program_may_write_it_too(tesk: Tesk, shared: Path) -> None:
    script = "echo one; echo two >&2; echo three | tee -a /out/log"
    task = await tesk.run(
        executors=[sh(script, stdout="/out/log", stderr="/out/log")],
        outputs=[{"path": "/out/log", "url": f"{shared}/log"}],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert (shared / "log").read_text() == "one\ntwo\nthree\nthree\n"


async def test_streams_may_go_to_devices(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("echo x; echo y >&2", stdout="/dev/null")])
    assert (task["state"], only(task)["stderr"]) == ("COMPLETE", "y\n")


async def test_the_log_keeps_a_bounded_tail(tesk: Tesk) -> None:
    log = only(await tesk.run(executors=[sh("seq 100000; seq 5 >&2")]))
    assert log["stdout"].endswith("99999\n100000\n")
    assert 60_000 < len(log["stdout"]) <= tesk.settings.log_tail_bytes
    assert log["stderr"] == "1\n2\n3\n4\n5\n"


async def test_exit_codes_are_the_programs_or_the_shells(tesk: Tesk) -> None:
    """All of them, in a process: tests/shim."""
    cases = [
        (["no-such-program"], 127, "no-such-program"),
        (["/etc/not-executable"], 126, "not executable"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
    ]
    ran = [{"image": IMAGE, "command": command, "ignore_error": True} for command, *_ in cases]
    task = await tesk.run(executors=[*ran, sh("exit 255"), sh("echo never")])
    assert (task["state"], len(task["logs"][0]["logs"])) == ("EXECUTOR_ERROR", len(cases) + 1)
    for log, (_, code, words) in zip(task["logs"][0]["logs"], [*cases, ([], 255, "")], strict=True):
        assert (log["exit_code"], words in log["stderr"]) == (code, True)
        assert f"exit code {code}" in "\n".join(task["logs"][0]["system_logs"])


async def test_an_ignored_error_is_recorded_and_the_next_executor_runs(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("exit 4", ignore_error=True), sh("echo next")])
    assert task["state"] == "COMPLETE"
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [4, 0]


async def test_executors_share_volumes_whatever_their_users(tesk: Tesk) -> None:
    nobody = {"image": NOBODY_IMAGE, "command": ["sh", "-c", "mkdir /vol/sub; echo b > /vol/sub/b; cat /vol/a"]}
    task = await tesk.run(
        volumes=["/vol/"], executors=[sh("echo a > /vol/a"), nobody, sh("cat /vol/sub/b; ls /vol; rm -r /vol/sub")]
    )
    logs = task["logs"][0]["logs"]
    assert [log["stdout"] for log in logs] == ["", "a\n", "b\na\nsub\n"]


@pytest.mark.places(*LOOKED_AT)
async def test_inputs_are_private_copies_that_any_user_can_change(tesk: Tesk, shared: Path) -> None:
    (shared / "theirs").write_text("original\n")
    executor = {
        "image": NOBODY_IMAGE,
        "command": ["sh", "-c", "echo more >> /in/a; mv /in/a /in/b; cat /in/b; /in/run"],
    }
    task = await tesk.run(
        inputs=[{"path": "/in/a", "url": f"file://{shared}/theirs"}, content("/in/run", "#!/bin/sh\necho ran\n")],
        executors=[executor],
    )
    assert only(task)["stdout"] == "original\nmore\nran\n"
    assert (shared / "theirs").read_text() == "original\n"


async def test_files_beside_the_images_own_do_not_hide_them(tesk: Tesk) -> None:
    paths = ["/etc/new", "/bin/tool", "/script", "/usr/local/bin/other", "/opt/deep/er/x"]
    task = await tesk.run(
        inputs=[content(path, path) for path in paths],
        executors=[sh(f"cat {' '.join(paths)}; cat /etc/image-file; ls /bin/sh")],
    )
    assert only(task)["stdout"] == "".join(paths) + "from the image\n/bin/sh\n"


async def test_outputs_beside_the_images_own_files_arrive_and_reach_later_executors(tesk: Tesk, shared: Path) -> None:
    task = await tesk.run(
        executors=[
            sh("echo one > /result; mkdir -p /opt/x/dir/sub; echo two > /opt/x/dir/sub/f; echo w > '/a b.log'"),
            sh("cat /result /opt/x/dir/sub/f /*.log; echo more >> /result; ls /bin/sh"),
        ],
        outputs=[
            {"path": "/result", "url": f"{shared}/result"},
            {"path": "/opt/x/dir", "url": f"{shared}/dir", "type": "DIRECTORY"},
            {"path": "/*.log", "path_prefix": "/", "url": f"{shared}/logs"},
        ],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert task["logs"][0]["logs"][1]["stdout"] == "one\ntwo\nw\n/bin/sh\n"
    assert (shared / "result").read_text() == "one\nmore\n"
    assert (shared / "dir/sub/f").read_text() == "two\n"
    assert (shared / "logs/a b.log").read_text() == "w\n"


async def test_what_the_image_has_beside_the_tasks_files_stays_and_these_are_files_as_any(
    tesk: Tesk, shared: Path
) -> None:
    first = """
        /app/program; cat in; sed -i s/one/two/ in; echo new > .new; mv .new config
        mkdir results; echo r > results/r; echo a > a.txt; echo b > b.txt; ls /data/reference"""
    task = await tesk.run(
        inputs=[content("/app/in", "one\n"), content("/app/config", "old\n"), content("/data/in/x", "x\n")],
        executors=[
            {"image": APP_IMAGE, "command": ["sh", "-c", first], "workdir": "/app", "stdout": "/app/log"},
            {"image": APP_IMAGE, "command": ["sh", "-c", "program; cat in config results/r *.txt /data/in/x"],
             "workdir": "/app", "env": {"PATH": "/app:/bin"}, "stderr": "/app/errors"},
            {"image": APP_IMAGE, "command": ["sh", "-c", "cat; /app/program"], "stdin": "/app/config"},
        ],
        outputs=[
            {"path": "/app/log", "url": f"{shared}/log"},
            {"path": "/app/in", "url": f"{shared}/in"},
            {"path": "/app/results", "url": f"{shared}/results", "type": "DIRECTORY"},
            {"path": "/app/*.txt", "path_prefix": "/app", "url": f"{shared}/texts"},
        ],
    )  # fmt: skip
    assert task["state"] == "COMPLETE", task["logs"]
    said = "/app/program ran\none\nprogram\n"
    told = [log["stdout"] for log in task["logs"][0]["logs"]]
    assert told == [said, "/app/program ran\ntwo\nnew\nr\na\nb\nx\n", "new\n/app/program ran\n"]
    assert [(shared / name).read_text() for name in ("log", "in", "results/r")] == [said, "two\n", "r\n"]
    assert sorted(path.name for path in (shared / "texts").iterdir()) == ["a.txt", "b.txt"]


async def test_thousands_of_inputs_in_folders_of_their_own_beside_the_images_own_are_one_copy(tesk: Tesk) -> None:
    script = (
        "/data/reference/program; ls /data | wc -l; cat /data/0/in /data/2999/in; grep -c ' /data' /proc/self/mountinfo"
    )
    task = await tesk.run(
        inputs=[content(f"/data/{n}/in", f"{n}\n") for n in range(3000)],
        executors=[{"image": APP_IMAGE, "command": ["sh", "-c", script]}],
    )
    assert only(task)["stdout"] == "/data/reference/program ran\n3001\n0\n2999\n0\n"


@pytest.mark.places(*LOOKED_AT)
async def test_thousands_of_inputs_where_the_images_user_cannot_write_are_one_mount(tesk: Tesk) -> None:
    task = await tesk.run(
        inputs=[content(f"/app/{n}", f"{n}\n") for n in range(1000)],
        executors=[{"image": WORKER_IMAGE, "command": ["sh", "-c", "ls /app | wc -l; cat /app/0 /app/999"]}],
    )
    assert only(task)["stdout"] == "1000\n0\n999\n"


@pytest.mark.places(*LOOKED_AT)
async def test_a_user_replaces_files_where_the_image_lets_them_and_reads_them_elsewhere(tesk: Tesk) -> None:
    script = "~/program; /app/program; sed -i s/one/two/ ~/in; cat ~/in /app/in"
    task = await tesk.run(
        inputs=[content("/home/worker/in", "one\n"), content("/app/in", "app\n")],
        executors=[{"image": WORKER_IMAGE, "command": ["sh", "-c", script], "env": {"HOME": "/home/worker"}}],
    )
    assert only(task)["stdout"] == "/home/worker/program ran\n/app/program ran\ntwo\napp\n"


async def test_a_folder_is_merged_into_one_of_the_images(tesk: Tesk, shared: Path) -> None:
    (shared / "etc").mkdir()
    (shared / "etc/mine").write_text("mine\n")
    task = await tesk.run(
        inputs=[{"path": "/etc", "url": f"{shared}/etc", "type": "DIRECTORY"}],
        executors=[sh("cat /etc/mine /etc/image-file")],
    )
    assert only(task)["stdout"] == "mine\nfrom the image\n"


async def test_an_output_folder_does_not_exist_beforehand_but_its_parent_does(tesk: Tesk, shared: Path) -> None:
    task = await tesk.run(
        executors=[sh("ls -d /work/deep && mkdir /work/deep/results && echo r > /work/deep/results/r")],
        outputs=[{"path": "/work/deep/results", "url": f"{shared}/results", "type": "DIRECTORY"}],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert (shared / "results/r").read_text() == "r\n"


@pytest.mark.places(*LOOKED_AT)
@pytest.mark.parametrize("image", [IMAGE, NOBODY_IMAGE])
async def test_outputs_arrive_whatever_their_modes_and_owners(tesk: Tesk, shared: Path, image: str) -> None:
    """As root a program gives some of them away, as tar and databases do."""
    is_root = image == IMAGE and tesk.settings.run_as_user == -1
    copied = "/srv/c" if is_root else "/tmp/c"
    script = (
        f"umask 077; echo a > /out/a; mkdir -p /out/d/e; echo b > /out/d/e/b; chmod 300 /out/d/e; echo c > {copied}"
    )
    if is_root:
        script += f"; busybox chown -R 7:7 /out/a /out/d {copied}"
    task = await tesk.run(
        executors=[{"image": image, "command": ["sh", "-c", script]}],
        outputs=[
            {"path": "/out/a", "url": f"{shared}/a"},
            {"path": "/out/d", "url": f"{shared}/d", "type": "DIRECTORY"},
            {"path": copied, "url": f"{shared}/c"},
        ],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert [(shared / name).read_text() for name in ("a", "d/e/b", "c")] == ["a\n", "b\n", "c\n"]


async def test_limits_hold_and_running_out_of_memory_is_named(tesk: Tesk) -> None:
    quota = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || true"
    log = only(await tesk.run(executors=[sh(quota)], resources={"cpu_cores": 0.25, "ram_gb": 0.0625}))
    assert log["stdout"].split()[0] == "25000"
    hungry = {"image": IMAGE, "command": ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]}
    task = await tesk.run(executors=[hungry], resources={"ram_gb": 0.0625})
    assert (task["state"], only(task)["exit_code"]) == ("EXECUTOR_ERROR", 137)
    assert "out of memory, limit 64 MiB" in "\n".join(task["logs"][0]["system_logs"])


async def test_a_process_that_outgrows_the_memory_is_named_and_no_more_is_said_than_is_true(tesk: Tesk) -> None:
    too_much = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    resources = {"ram_gb": 0.0625}
    survived, failed = await asyncio.gather(
        tesk.run(executors=[sh(f"{too_much}; echo went on")], resources=resources),
        tesk.run(executors=[sh(f"{too_much} || exit 5"), sh("echo never")], resources=resources),
    )
    assert (survived["state"], only(survived)["stdout"]) == ("COMPLETE", "went on\n")
    assert (failed["state"], only(failed)["exit_code"]) == ("EXECUTOR_ERROR", 5)
    for task in (survived, failed):
        (line,) = [line for line in task["logs"][0]["system_logs"] if "memory" in line]
        assert line.startswith("warning: executor 0 ")
        assert line.endswith("a process that its program had started was killed: out of memory, limit 64 MiB")


async def test_executors_can_make_no_device_and_send_no_raw_packet(tesk: Tesk) -> None:
    script = "while read key value; do [ $key != CapBnd: ] || echo $value; done < /proc/self/status; mknod /n c 1 3"
    log = only(await tesk.run(executors=[sh(script)]))
    mknod, net_raw = 1 << 27, 1 << 13
    assert int(log["stdout"], 16) & (mknod | net_raw) == 0
    assert log["exit_code"] == 1


async def test_a_container_that_tampers_with_its_streams_reads_nothing_of_this_machine(tesk: Tesk) -> None:
    script = "cd /.tesk/control; rm stdout stderr; ln -s /etc/hostname stdout; mkfifo stderr"
    log = only(await tesk.run(executors=[sh(script)]))
    assert (log["exit_code"], log["stdout"], log["stderr"]) == (0, "", "")


@pytest.mark.parametrize("settings", [{"network": "host"}], indirect=True)
async def test_times_and_states_are_true(tesk: Tesk, place: Place) -> None:
    """The first program runs until somebody has seen the task run."""
    with gates(place.host) as door:
        task_id = await tesk.create(executors=[sh(f"wget -q -O - {door.url}/seen"), sh("true")])
        seen: list[str] = []
        async with asyncio.timeout(SHORT_S):
            while seen[-1:] != ["COMPLETE"]:
                await asyncio.sleep(0.002)
                task = await tesk.task(task_id)
                if seen[-1:] != [task["state"]]:
                    seen.append(task["state"])
                if running(task):
                    door.open("seen")
    order = ["QUEUED", "INITIALIZING", "RUNNING", "COMPLETE"]
    assert seen == [state for state in order if state in seen]
    assert "RUNNING" in seen
    log = task["logs"][0]
    times = [
        log["start_time"],
        *(entry[key] for entry in log["logs"] for key in ("start_time", "end_time")),
        log["end_time"],
    ]
    assert times == sorted(times)
    assert all(time.endswith("Z") for time in times)


async def test_a_running_tasks_log_has_what_it_wrote_so_far(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[sh("true"), sh("echo so far; echo oops >&2; sleep 1000")])
    await tesk.until(task_id, running)
    async with asyncio.timeout(SHORT_S):
        log = None
        while not (log and len(log.logs) == 2 and log.logs[1].stdout and log.logs[1].stderr):
            await asyncio.sleep(0.02)
            log = await tesk.dispatcher.live_log(task_id, SERVER)
    assert (log.logs[1].stdout, log.logs[1].stderr, log.logs[1].exit_code) == ("so far\n", "oops\n", -1)
    await tesk.dispatcher.cancel(task_id, SERVER)
    assert (await tesk.ended(task_id))["state"] == "CANCELED"
