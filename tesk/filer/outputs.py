"""Pushes what a task made: each output's pattern is expanded, directories are walked, every file is told of.

The scratch is hostile here (see jail). One output that fails does not keep the others from being pushed; all
failures are told in the end.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from tesk.beneath import kind
from tesk.filer.errors import NotFound, TransferError, from_file, printable, redact, sentence
from tesk.filer.jail import Scratch, look, walk
from tesk.filer.plan import FilerSettings, OutputsPlan, Pushed, Typed, Warned
from tesk.filer.step import Step
from tesk.filer.streams import Source
from tesk.filer.wildcards import exists, expand
from tesk.patterns import implied_prefix, is_plain, literal, plain_directory
from tesk.tes import WILDCARDS, FileType, Output

MAX_TOLD: Final = 20


class Departure(NamedTuple):
    """One file or directory that is to be pushed: container path as declared, where it really is, where to."""

    path: str
    canonical: str
    url: str
    is_directory: bool = False
    size: int = 0


def push_outputs(plan: OutputsPlan, step: Step) -> None:
    """Pushes all. Raises TransferError with every failure (a whole sentence), Stopped."""
    scratch = Scratch(plan.root, plan.uncopied)
    failures: list[str] = []
    departures: dict[tuple[str, str], Departure] = {}
    letters: list[set[str]] = [set() for _ in plan.outputs]
    for output, seen in zip(plan.outputs, letters, strict=True):
        with _collected(output.url, output.path, plan.settings, step, failures):
            for path, url in _targets(output, scratch, step):
                with _collected(url, path, plan.settings, step, failures):
                    for departure in _below(path, url, output, scratch, step):
                        departures[departure.path, departure.url] = departure
                        if departure.path == path:
                            seen.add("D" if departure.is_directory else "F")
    if any(output.type is None for output in plan.outputs):
        step.emit(Typed("".join(seen.pop() if len(seen) == 1 else "?" for seen in letters)))
    full = {posixpath.dirname(departure.path) for departure in departures.values()}
    wanted = [departure for departure in departures.values() if not (departure.is_directory and departure.path in full)]
    step.meter.expect([departure.size for departure in wanted if not departure.is_directory])

    def failed(error: Exception) -> bool:
        if isinstance(error, TransferError):
            failures.append(error.answer)
        return isinstance(error, TransferError)

    step.run([partial(_push, departure, scratch, step) for departure in wanted], failed)
    if failures:
        raise TransferError(_told(failures))


@contextlib.contextmanager
def _collected(url: str, path: str, settings: FilerSettings, step: Step, failures: list[str]) -> Iterator[None]:
    """Lets one output fail, or be missing, without an end to the others."""
    try:
        yield
    except NotFound as error:
        if settings.missing_outputs == "error":
            failures.append(error.answer)
        else:
            step.emit(Warned(error.answer))
    except TransferError as error:
        failures.append(sentence("output", url, error))
    except OSError as error:
        failures.append(sentence("output", url, from_file(error, f"reading {printable(path)}")))


def _told(failures: list[str]) -> str:
    more = len(failures) - MAX_TOLD
    return "; and ".join(failures[:MAX_TOLD]) + (f"; and {more} more" if more > 0 else "")


def _targets(output: Output, scratch: Scratch, step: Step) -> list[tuple[str, str]]:
    """The paths that one output stands for, each with its URL. Raises NotFound when nothing matches.

    What is no pattern for POSIX names what is there under that very name; only where nothing is, it may mean more. What
    matches nothing stands for itself (POSIX 2.13.3), and so does what was sent as a name.
    """
    scheme = step.schemes.of(output.url)
    path, is_pattern = posixpath.normpath(output.path), bool(WILDCARDS.search(output.path))
    if is_plain(output.path) or (not is_pattern and exists(scratch, path)):
        return [(path, output.url)]
    with step.listings.listing(f"the pattern {printable(output.path)}") as listing:
        paths = expand(scratch, output.path, listing)
    prefix, url = output.path_prefix or "", output.url
    if is_sent_as_name := not prefix and (implied := implied_prefix(output.path, url)) is not None:
        prefix, url = implied
    if (is_sent_as_name or not paths) and exists(scratch, path):
        paths.append(path)
    if not paths and is_pattern:
        raise NotFound(f"output {printable(output.path)}: nothing matches the pattern")
    if not prefix and len(paths) <= 1:
        return [(paths[0] if paths else path, url)]
    prefix = posixpath.normpath(literal(prefix) or plain_directory(output.path))
    return [(path, scheme.child(url, posixpath.relpath(path, prefix))) for path in paths or [path]]


def _below(path: str, url: str, output: Output, scratch: Scratch, step: Step) -> Iterator[Departure]:
    scheme = step.schemes.of(url)
    try:
        canonical, status = look(scratch, path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"output {printable(path)}: does not exist{_leads_out(scratch, path)}") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NotFound(f"output {printable(path)}: its links loop") from None
    if stat.S_ISREG(status.st_mode):
        if _ends_with_slash(url):
            keeps_name = output.type is not FileType.DIRECTORY
            url = scheme.child(url, posixpath.basename(path)) if keeps_name else url.rstrip("/")
        yield Departure(path, canonical, url, False, status.st_size)
    elif not stat.S_ISDIR(status.st_mode):
        step.emit(Warned(f"output {printable(path)} was left out: it is {kind(status.st_mode)}"))
    else:
        with step.listings.listing(printable(path)) as listing:
            for node in walk(scratch, path, step.warn, listing):
                where = posixpath.join(path, node.relative).rstrip("/")
                target = scheme.child(url, node.relative) if node.relative else url
                yield Departure(where, node.canonical, target, node.is_directory, node.size)


def _ends_with_slash(url: str) -> bool:
    """Whether a URL names what lies below it; the last slash of a query says nothing of that."""
    return url.endswith("/") and not (url.lower().startswith(("http:", "https:")) and "?" in url)


def _leads_out(scratch: Scratch, path: str) -> str:
    """Why a path that is there does not exist for us, in words."""
    try:
        at = posixpath.join(scratch.resolve(posixpath.dirname(path)), posixpath.basename(path))
        target = os.readlink(scratch.root + scratch.where(at))
    except OSError:
        return ""
    return f"; it is a link to {printable(target)}, which is not among the task's files"


def _push(departure: Departure, scratch: Scratch, step: Step) -> None:
    try:
        scheme = step.schemes.of(departure.url)
        if departure.is_directory:
            step.with_retries(lambda: scheme.make_directory(departure.url))
            return
        fd = scratch.open_file(departure.canonical)
        try:
            source = Source(fd, step.meter)

            def attempt() -> None:
                source.restart()
                scheme.push(source, departure.url)

            step.with_retries(attempt)
        finally:
            os.close(fd)
    except TransferError as error:
        raise TransferError(sentence("output", departure.url, error)) from error
    except OSError as error:
        failure = from_file(error, f"reading {printable(departure.path)}")
        raise TransferError(sentence("output", departure.url, failure)) from error
    step.meter.add(0, files=1)
    url = redact(departure.url).removesuffix("?…")
    step.emit(Pushed(url, printable(departure.path), source.size))
