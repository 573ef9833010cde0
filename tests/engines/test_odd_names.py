"""Folders by names that an engine, a shell or Kubernetes has a meaning for: one task has them all."""

from pathlib import Path

import pytest

from tests.engines.places import LOCAL
from tests.engines.running import Tesk, content, sh

NAMES = [
    *("a,b", "a,readonly", "a=b,ro=true", "source=x,target=y", '"quoted"', '"', 'a"b,c', "\r", "line\r\nbreaks\n"),
    *("a:b", "a:ro", "c:\\d", "::", "back\\slash", "ends\\", "'single'", "a b", " ", " led by one", "ends with one "),
    *("tab\t", "\x01\x7f", "$(HOME)", "$HOME", "$$(X)", "${X}", "`id`", "%2e%2e", "%", "..a", "...", "-v", "--", "#"),
    *("?a=b&c", "*", "[x]", "{a,b}", "~", "é日本", "e\u0301", "\u202e", "a;b|c>d", "!", "@", "x" * 255, "null", "0"),
]


async def test_folders_of_any_name_are_mounted(tesk: Tesk, shared: Path) -> None:
    """Each is a mount of its own, below one folder and at the top, with an input and an output; and the workdir."""
    inputs = [content(f"/in/{n}-{name[:250]}/f", f"{n} ") for n, name in enumerate(NAMES)]
    inputs += [content(f"/{name}/f", f"{n}\n") for n, name in enumerate(NAMES)]
    outputs = [
        {"path": f"/{escaped(name)}/out", "url": f"{shared}/{n}", "type": "FILE"} for n, name in enumerate(NAMES)
    ]
    workdir = '/w,o:r"k\\d$(i)r\n.'
    script = 'n=0; printf "%s\\0" "$PWD"; for d; do cat "/in/$n-"*/f "/$d/f"; echo "$d" > "/$d/out"; n=$((n + 1)); done'
    task = await tesk.run(
        inputs=inputs,
        outputs=outputs,
        executors=[{**sh(""), "workdir": workdir, "command": ["sh", "-c", script, "-", *NAMES]}],
    )
    assert task["state"] == "COMPLETE", str(task["logs"])
    told, _, rest = task["logs"][0]["logs"][0]["stdout"].partition("\0")
    assert told == workdir
    assert rest == "".join(f"{n} {n}\n" for n in range(len(NAMES)))
    arrived = [(shared / f"{n}").read_bytes().decode() for n in range(len(NAMES))]
    assert arrived == [f"{name}\n" for name in NAMES]


def escaped(name: str) -> str:
    return "".join(f"\\{char}" if char in "*?[\\{" else char for char in name)


@pytest.mark.places(*LOCAL)
async def test_no_name_of_a_folder_mounts_another_one(tesk: Tesk, tmp_path: Path) -> None:
    (tmp_path / "of the host").write_text("secret")
    for odd in (
        f"/data,source={tmp_path}",
        f"/data\n,src={tmp_path}",
        f'/data"",source={tmp_path}',
        f"/data:,source={tmp_path}",
    ):
        task = await tesk.run(inputs=[content(f"{odd}/f", "x")], executors=[sh("cat /data*/of*")])
        logs = task["logs"][0]
        assert "secret" not in str(logs)
        if ":" in odd:
            assert "cannot be mounted: it holds a colon and a comma, quote or line break" in logs["system_logs"][-1]
        else:
            assert task["state"] == "EXECUTOR_ERROR", logs
