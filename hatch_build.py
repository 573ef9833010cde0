"""Builds the shim, a C program, into what is installed: a wheel for this machine's processor, or this checkout.

Not on other systems than Linux, which have no use for it: there tesk is a client, or a cluster's server.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShimHook(BuildHookInterface):  # type: ignore[misc]
    """hatchling's hook for wheels, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises RuntimeError with the compiler's words where the shim cannot be built."""
        if sys.platform != "linux":
            return
        command = ["sh", str(Path(self.root) / "tesk/shim/build")]
        made = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"tesk's shim could not be built: {made.stderr.strip()}")
        if version == "standard":
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
