"""The main job in one task: inputs from every kind of storage, two executors, outputs to every kind of storage."""

from pathlib import Path

from tests.servers.containers import IMAGE
from tests.servers.ftp import ftp_server
from tests.servers.nginx import nginx
from tests.whole.conftest import Server

COMPARE = "cat /in/inline /in/dir/deep/f; cd /in; cat http ftp s3 file | md5sum > /work/sum"
BINARY = bytes(range(256)) * 4096


def test_inputs_and_outputs_over_every_kind_of_storage(server: Server, tmp_path: Path) -> None:
    for folder in (tmp_path / "http", tmp_path / "ftp", server.s3_root / "lab", server.shared):
        folder.mkdir(exist_ok=True)
        (folder / "in.bin").write_bytes(BINARY)
    (server.s3_root / "lab/dir/deep").mkdir(parents=True)
    (server.s3_root / "lab/dir/deep/f").write_text("from s3\n")
    with nginx(tmp_path / "http") as http, ftp_server(tmp_path / "ftp", user="me", password="p@ss/of+ftp") as ftp:
        stores = {"http": http, "ftp": ftp, "s3": "s3://lab", "file": f"file://{server.shared}"}
        task = server.run({
            "inputs": [
                {"path": "/in/inline", "content": "inline\n"},
                {"path": "/in/dir", "url": "s3://lab/dir", "type": "DIRECTORY"},
                *({"path": f"/in/{name}", "url": f"{url}/in.bin"} for name, url in stores.items()),
            ],
            "executors": [
                {"image": IMAGE, "command": ["sh", "-ec", COMPARE]},
                {"image": IMAGE, "command": ["sh", "-ec", "cp /in/s3 /out/dir/copy; cat /work/sum"]},
            ],
            "volumes": ["/work"],
            "outputs": [
                *({"path": "/out/dir", "url": f"{url}/results", "type": "DIRECTORY"} for url in stores.values()),
                *({"path": "/out/dir/copy", "url": f"{url}/out.bin"} for url in stores.values()),
            ],
        })  # fmt: skip
    assert task["state"] == "COMPLETE", task["logs"]
    first, second = task["logs"][0]["logs"]
    assert first["stdout"] == "inline\nfrom s3\n"
    assert len(second["stdout"].split()[0]) == 32
    for folder in (tmp_path / "http", tmp_path / "ftp", server.s3_root / "lab", server.shared):
        assert (folder / "out.bin").read_bytes() == BINARY
        assert (folder / "results/copy").read_bytes() == BINARY
    assert {output["size_bytes"] for output in task["logs"][0]["outputs"]} == {str(len(BINARY))}
    assert len(task["logs"][0]["outputs"]) == 8
    assert "p@ss" not in str(task["logs"])
