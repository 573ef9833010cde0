"""What a hostile program, or a hostile image, can reach of the machine that runs it: its own task and nothing else."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiodocker
import msgspec
import pytest

from tesk.places.local import manifest
from tesk.places.local.containers import Containers
from tesk.places.local.place import install_shim
from tesk.settings import Settings
from tests.engines.held import held
from tests.engines.places import LOCAL
from tests.engines.running import Tesk, content, sh
from tests.servers import containers
from tests.servers.containers import NOBODY_IMAGE

pytestmark = pytest.mark.places(*LOCAL)
HEALTH_IMAGE = "localhost/tesk-health:1"
CHECKED = "touch /out/checked /.tesk/opened/scratch/checked /.tesk/task/scratch/checked"
DAC_OVERRIDE, FOWNER, NET_RAW, MKNOD = (1 << bit for bit in (1, 3, 13, 27))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the machine that no task was given."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("key", "a"):
        (folder / name).write_text("secret\n")
    return folder


def logs(task: dict[str, Any]) -> list[dict[str, Any]]:
    return list(task["logs"][0]["logs"])


def said(task: dict[str, Any]) -> str:
    return "\n".join(task["logs"][0].get("system_logs") or [])


async def test_a_link_put_where_a_mount_comes_from_leads_nowhere(tesk: Tesk, shared: Path, outside: Path) -> None:
    """The folder of copies is the only one that a program sees from above; a link there is its own copy's affair."""
    script = f"echo r > /result; cd /.tesk/files; mv data old; rm -rf data; ln -s {outside} data; ls -A"
    task = await tesk.run(
        volumes=["/data"],
        executors=[sh(script), sh("ls -A /data; cat /data/key; echo x > /data/written")],
        outputs=[{"path": "/result", "url": f"{shared}/result"}],
    )
    first, second = logs(task)
    assert (first["stdout"], second["stdout"]) == ("data\n", "")
    assert sorted(path.name for path in outside.iterdir()) == ["a", "key"]
    assert (task["state"], (shared / "result").read_text()) == ("COMPLETE", "r\n")


async def test_a_link_put_inside_a_staged_folder_leads_no_later_mount_astray(
    tesk: Tesk, shared: Path, outside: Path
) -> None:
    """An input that turns out to be a folder, and another below it."""
    (shared / "tools/d").mkdir(parents=True)
    (shared / "tools/d/b").write_text("b\n")
    task = await tesk.run(
        inputs=[{"path": "/opt/tools", "url": f"{shared}/tools"}, content("/opt/tools/d/a", "mine\n")],
        executors=[
            sh(f"cat /opt/tools/d/a /opt/tools/d/b; cd /opt/tools; mv d e; ln -s {outside} d"),
            sh("cat /opt/tools/d/a; echo x >> /opt/tools/d/a"),
        ],
    )
    first, second = logs(task)
    assert (first["stdout"], second["stdout"]) == ("mine\nb\n", "")
    assert (outside / "a").read_text() == "secret\n"


async def test_a_source_that_is_no_longer_what_was_made_is_not_mounted(tesk: Tesk, outside: Path) -> None:
    """As if somebody else had been there: the server looks before each container."""
    task_id = await held(tesk, sh("cat /work/key"))
    work = tesk.data / "tasks" / task_id / "scratch/work"
    old = work.rename(work.with_name("old"))
    work.symlink_to(outside)
    (old / "go").touch()
    task = await tesk.ended(task_id)
    assert (task["state"], len(logs(task))) == ("SYSTEM_ERROR", 1)
    assert "executor 1: /scratch/work" in said(task)
    assert "cannot be mounted" in said(task)


async def test_copies_and_mounts_of_one_task_do_not_hurt_each_other(tesk: Tesk, shared: Path) -> None:
    """A pattern among the image's own files matches mounts too: what is copied of them does not empty them."""
    task = await tesk.run(
        inputs=[content("/a.txt", "a\n")],
        volumes=["/opt/vol"],
        executors=[
            sh(
                "echo v > /opt/vol/v; echo b > /b.txt; mkdir /opt/more; echo m > /opt/more/m; echo 1", stdout="/log.txt"
            ),
            sh("cat /opt/vol/v /a.txt /b.txt /opt/more/m; ls -A /opt", stdout="/log.txt"),
        ],
        outputs=[
            {"path": "/*.txt", "path_prefix": "/", "url": f"{shared}/all"},
            {"path": "/opt", "url": f"{shared}/opt", "type": "DIRECTORY"},
            {"path": "/.*", "path_prefix": "/", "url": f"{shared}/hidden"},
        ],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    found = {str(path.relative_to(shared)): path.read_text() for path in shared.rglob("*") if path.is_file()}
    found.pop("hidden/.dockerenv", None)
    assert found == {
        "all/a.txt": "a\n",
        "all/b.txt": "b\n",
        "all/log.txt": "v\na\nb\nm\nmore\nvol\n",
        "opt/vol/v": "v\n",
        "opt/more/m": "m\n",
    }


@pytest.mark.parametrize("settings", [{"executor_capabilities": ("MKNOD",)}], indirect=True)
async def test_streams_that_are_no_files_are_named_and_not_opened(tesk: Tesk) -> None:
    script = "cd /.tesk/control; rm stdout stderr; mknod stdout c 1 5; mkfifo stderr"
    task = await tesk.run(executors=[sh(script), sh("rm /out/o; mkdir /out/o", stdout="/out/o")])
    assert task["state"] == "COMPLETE", task["logs"]
    assert [(log["stdout"], log["stderr"]) for log in logs(task)] == [("", ""), ("", "")]
    for words in ("its stdout was not read: it is a device", "its stderr was not read: it is a fifo", "it is a folder"):
        assert words in said(task)


@pytest.mark.parametrize("settings", [{"executor_capabilities": ("MKNOD", "NET_RAW")}], indirect=True)
async def test_capabilities_that_the_operator_gives_back_are_there(tesk: Tesk) -> None:
    script = "while read key value; do [ $key != CapBnd: ] || echo $value; done < /proc/self/status; mknod /n c 1 3"
    log = logs(await tesk.run(executors=[sh(script)]))[0]
    assert int(log["stdout"], 16) & (NET_RAW | MKNOD) == NET_RAW | MKNOD
    assert log["exit_code"] == 0


@pytest.mark.parametrize("settings", [{"max_processes": 30}], indirect=True)
async def test_processes_of_an_executor_are_limited(tesk: Tesk) -> None:
    script = "for n in $(seq 100); do sleep 1000 & done; echo all"
    log = logs(await tesk.run(executors=[sh(script)]))[0]
    assert log["stdout"] == ""
    assert "fork" in log["stderr"]


@pytest.fixture
async def health_image(engine_socket: Path) -> str:
    """An image whose health check leaves a file wherever a container of tesk's could let it."""
    async with aiodocker.Docker(url=f"unix://{engine_socket}") as docker:
        await docker.images.import_image(containers.image_archive(HEALTH_IMAGE, health=CHECKED))
    return HEALTH_IMAGE


async def test_the_health_check_of_an_image_never_runs(
    tesk: Tesk, health_image: str, engine_socket: Path, tmp_path: Path
) -> None:
    script = {"image": health_image, "command": ["sh", "-c", "sleep 1; ls /out"]}
    assert logs(await tesk.run(volumes=["/out"], executors=[script]))[0]["stdout"] == ""
    report = await on_folders(health_image, engine_socket, tmp_path, "sleep 1")
    assert report["files"] == ["inner", "report"]


async def test_a_container_that_opens_a_folder_up_has_no_more_than_that_needs(
    engine_socket: Path, tmp_path: Path
) -> None:
    report = await on_folders(NOBODY_IMAGE, engine_socket, tmp_path, "true")
    assert (report["opened"], report["tesk"]) == ("control scratch", "opened shim")
    assert int(report["capabilities"], 16) == DAC_OVERRIDE | FOWNER
    assert report["networks"] == "lo"
    assert report["user"] == "0"


async def on_folders(image: str, engine_socket: Path, folder: Path, script: str) -> dict[str, Any]:
    """Runs a script in place of the shim in a container as tesk makes them for a task's folders: what it saw."""
    folders = [folder / "task" / name for name in ("scratch", "control")]
    for each in folders:
        (each / "inner").mkdir(parents=True)
    show = (
        f"{script}; cd /; exec > /.tesk/opened/scratch/report; echo opened $(ls /.tesk/opened); echo tesk $(ls /.tesk);"
        "echo networks $(ls /sys/class/net); echo user $(id -u); grep CapEff /proc/self/status"
    )
    labels = {"tesk.instance": "test", "tesk.task": "test"}
    body = manifest.on_folders(image, "empty", folders, labels=labels, shim=install_shim(folder / "shim"))
    body["Entrypoint"] = ["sh", "-c", show]
    engine = Containers(engine_socket, "test")
    try:
        await engine.run_through(f"tesk-test-{os.urandom(4).hex()}", body)
    finally:
        await engine.close()
    lines = (folders[0] / "report").read_text().replace("CapEff:", "capabilities").splitlines()
    found: dict[str, Any] = dict(line.split(maxsplit=1) for line in lines)
    return found | {"files": sorted(os.listdir(folders[0]))}


@pytest.mark.parametrize("outputs", [True, False])
async def test_a_server_that_is_not_root_removes_what_programs_have_closed(
    settings: Settings, engine_socket: Path, tmp_path: Path, *, outputs: bool
) -> None:
    """It may use the engine, but what containers write belongs to their users, in trees as deep as they like."""
    script = "umask 077; mkdir /out/d /out/d/e; echo x > /out/d/e/f; chmod 0 /out/d"
    deep = "cd /out; mkdir deep; cd deep; for n in $(seq 60); do mkdir $D; cd $D; done; chmod 0 /out/deep"
    programs = [(script, {}), (deep, {"D": "d" * 200})]
    executors = [{"image": NOBODY_IMAGE, "command": ["sh", "-c", text], "env": env} for text, env in programs]
    document: dict[str, Any] = {"executors": executors, "volumes": ["/out"]}
    if outputs:
        document["outputs"] = [{"path": "/out/d", "url": f"{settings.file_roots[0]}/d", "type": "DIRECTORY"}]
    program = tmp_path / "unprivileged.py"
    program.write_text(UNPRIVILEGED)
    given = msgspec.json.encode({"settings": settings, "document": document, "socket": str(engine_socket)}).decode()
    dropped = "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown"
    process = await asyncio.create_subprocess_exec(
        "setpriv", dropped, sys.executable, str(program), given,
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    async with asyncio.timeout(600):
        out, _ = await process.communicate()
    assert json.loads(out.decode().splitlines()[-1]) == ["COMPLETE", []]
    assert (Path(settings.file_roots[0]) / "d/e/f").exists() == outputs


UNPRIVILEGED = """\
import asyncio, json, sys
sys.path.insert(0, ".")
from pathlib import Path
import msgspec
from tesk.places.local.folder import is_master_of_files
from tesk.settings import Settings
from tests.engines.places import containers_and_folders
from tests.engines.running import started

async def main():
    assert not is_master_of_files()
    given = msgspec.json.decode(sys.argv[1])
    async with started(msgspec.convert(given["settings"], Settings)) as tesk:
        task = await tesk.run(**given["document"])
        left = await containers_and_folders(Path(given["socket"]), tesk.data)
        print(json.dumps([task["state"], left]), flush=True)

asyncio.run(main())
"""


async def test_a_thousand_folders_of_their_own_are_one_mount(tesk: Tesk, shared: Path) -> None:
    count = 1000
    script = f"cat /work/in/{count - 1}/f; for n in $(seq 0 {count - 1}); do echo $n > /work/out/$n/f; done"
    task = await tesk.run(
        inputs=[content(f"/work/in/{n}/f", str(n)) for n in range(count)],
        outputs=[{"path": f"/work/out/{n}/f", "url": f"{shared}/{n}"} for n in range(count)],
        executors=[sh(f"{script}; grep -c ' /work' /proc/self/mountinfo >&2")],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert (logs(task)[0]["stdout"], logs(task)[0]["stderr"]) == (str(count - 1), "2\n")
    assert (shared / str(count - 1)).read_text() == f"{count - 1}\n"
