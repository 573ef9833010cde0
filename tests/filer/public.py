"""What a redirect of a public server leads to, in a network of its own where a public address is this machine's.

`python -m tests.filer.public FOLDER STATUS`, in a new network namespace: prints what the filer said of an input whose
server redirects to loopback, and how many requests arrived there.
"""

import subprocess
import sys
from pathlib import Path

from tesk.tes import Input
from tests.filer.faulty import answer, faulty
from tests.filer.stores import fetch

ADDRESS = "8.8.8.8"


def main(folder: Path, status: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", ADDRESS, "dev", "lo"], check=True)
    with faulty(lambda c, _n, _h: c.sendall(answer("200 OK", b"x"))) as inner:
        redirect = answer(status, b"", f"Location: {inner.url}/secret")
        with faulty(lambda c, _n, _h: c.sendall(redirect), ADDRESS) as outer:
            print(fetch(folder, Input("/f", url=f"{outer.url}/f")).failure)
        print(len(inner.requests))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
