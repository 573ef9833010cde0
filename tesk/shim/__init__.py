"""What runs inside a user's container, in C, and what others read of it in its control folder (shim.c).

The folder is the program's to write in, so it may lie about itself there; what has another form counts for nothing.
"""

import re
from typing import Final

ENDED: Final = re.compile(r"([0-9]{1,2}|1[0-9]{2}|2[0-4][0-9]|25[0-5])( workdir| copies)?\n")
"""The file `ended`: the exit code, and why the program never ran, if so: its working directory is not there, or its
files could not be copied into the container of a task that is one pod."""
MOST_ENDED: Final = 16
"""Bytes of the file `ended` that are read; the longest that means anything has 12."""
