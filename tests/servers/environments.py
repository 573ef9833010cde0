"""Python environments with the clients of others, made by uv from PyPI and kept in the cache between runs."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tesk"
UV: Final = str(Path(__file__).parents[2] / "scripts" / "uv")


def environment(name: str, *packages: str, build_constraints: str = "") -> Path:
    """The folder with the programs of these packages; `name` has the version of the first."""
    kept = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "ready").exists():
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir()
            (kept / "constraints").write_text(build_constraints)
            subprocess.run([UV, "venv", "-q", "--python", sys.executable, kept / "venv"], check=True, timeout=300)
            install = [UV, "pip", "install", "-q", f"--python={kept}/venv", f"--build-constraint={kept}/constraints"]
            subprocess.run([*install, *packages], check=True, timeout=600)
            (kept / "ready").touch()
    return kept / "venv/bin"
