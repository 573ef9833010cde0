"""The storage schemes, one package for each, opened by the URL that is asked for.

A package is imported when the first URL of its kind comes along: a task that stages one file over FTP never pays for
TLS or for an object store's library.
"""

import contextlib
import importlib
import threading
from collections.abc import Mapping
from typing import Any

from tesk import schemes
from tesk.filer.errors import TransferError
from tesk.filer.scheme import Context, Scheme


class Schemes:
    """The schemes opened for one step."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, Scheme] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> Scheme:
        """The scheme that serves `url`. Raises TransferError for an unknown one."""
        declared = schemes.serving(url)
        if declared is None:
            known = ", ".join(sorted(schemes.READABLE))
            name = schemes.name_of(url)
            raise TransferError(f"unsupported URL scheme {name!r}", f"use one of {known}, or an absolute path", tries=0)
        with self._lock:
            if declared.package not in self._open:
                self._open[declared.package] = _module(declared, "scheme").open_scheme(self._context)
            return self._open[declared.package]

    def close(self) -> None:
        for scheme in self._open.values():
            scheme.close()


def with_credentials(environ: Mapping[str, str]) -> list[str]:
    """`s3://` and the like, as far as the environment has a key, a file or an identity for them. Asks nobody."""
    found = []
    for declared in schemes.DECLARATIONS:
        with contextlib.suppress(TransferError):  # what is named cannot be used; each transfer says why
            if declared.identity and _module(declared, declared.identity).is_configured(environ):
                found += [f"{name}://" for name in declared.ports]
    return found


def _module(declared: schemes.Declaration, name: str) -> Any:
    return importlib.import_module(f"tesk.filer.schemes.{declared.package}.{name}")
