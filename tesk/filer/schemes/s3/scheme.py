"""`s3:` by obstore: custom endpoints with path style, credentials from the standard places, else anonymous.

What follows the bucket is the key, as it is: nothing is percent-decoded. A directory is the keys below its name and
a slash. obstore repeats failed requests itself, part by part, so errors come with the tries already made. What it sends
is signed with its SHA-256, which the store compares; what comes in is compared with the ETag where that is an MD5, else
with the checksum that the store keeps, which we ask for ourselves since obstore tells no headers. An empty directory is
an empty object whose key ends with a slash, which we make ourselves as well: obstore carries no such key. Those with a
line break or the like go another way, see `odd`, and so do files whose parts are too large to be held, see `parts`.
"""

import contextlib
import math
import re
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import InvalidPathError, PreconditionError
from obstore.store import S3Store

from tesk.filer.attributes import of_time
from tesk.filer.checksums import Checksum
from tesk.filer.credentials import Credentials
from tesk.filer.errors import Changed, Stopped, TransferError, redact
from tesk.filer.memory import UPLOADS_BYTES
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.s3.aws import Location, location_of
from tesk.filer.schemes.s3.odd import OddKeys
from tesk.filer.schemes.s3.parts import Parts, part_size
from tesk.filer.schemes.s3.wire import DENIALS, S3Wire, code_of, is_encrypted, md5, refused
from tesk.filer.streams import Sink, Source
from tesk.filer.wire import http_headers
from tesk.filer.wire.objects import Object, checked_bucket, entries_of, found_at

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta

WHOLE: Final = 4 * 1024 * 1024
ASKED_FROM: Final = 1024 * 1024
"""An object of parts, or without an MD5 for its ETag and at least so large, is worth a request for its checksums."""
CHUNK: Final = 256 * 1024
PARTS_AT_ONCE: Final = 3
MOST_HELD: Final = UPLOADS_BYTES // 2
"""Larger parts go straight from the file: above 300 GB."""
SLOWEST_BYTES_PER_S: Final = 50_000
"""An upload that is slower than that for each of its parts counts as stalled."""
_STATUS: Final = re.compile(r"status(?: code)?:? (\d{3})(?: ([A-Za-z -]+))?")
_HOST: Final = re.compile(r"performing \w+ (https?://[^/\s?]+)")
_RETRIES: Final = re.compile(r"\bretries: (\d+),")
_REASON: Final = re.compile(r'message: "([^"]+)"')
_BARE: Final = re.compile(r"[\x00-\x1f\x7f]")


def split(url: str) -> tuple[str, str]:
    """The bucket and the key of an `s3:` URL. Raises TransferError."""
    bucket, _, key = url.partition("://")[2].partition("/")
    checked_bucket(bucket, "s3://bucket/key")
    key = key.rstrip("/")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise TransferError("an S3 key is UTF-8 text, the name is not", "rename the file") from None
    if key and ("\0" in key or any(part in ("", ".", "..") for part in key.split("/"))):
        raise TransferError(
            "the key holds an empty component, '.', '..' or a NUL, which tesk does not stage", "rename the object"
        )
    return bucket, key


class S3Scheme:
    """One store per bucket."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings
        self._reach = context.reach
        self._credentials = Credentials(context.settings.credentials)
        self._stores: dict[str, tuple[S3Store, Location]] = {}
        self._lock = threading.Lock()
        self._listings = context.listings
        self._memory = context.memory
        self._wire = S3Wire(context.reach, context.settings.timeout_s)
        self._parts = Parts(context)
        self._odd = OddKeys(context, self._where, self._parts)

    def _store(self, url: str, bucket: str, longest_s: int = 0) -> tuple[S3Store, Location]:
        """One for each bucket and each table of the credentials; `longest_s` is what a request's body may take.

        obstore's time limit for an answer begins with the request, so an upload's has to hold its body as well.
        """
        table = self._credentials.of(url)
        key = f"{table.prefix} {bucket} {longest_s}"
        with self._lock:
            if key not in self._stores:
                location = location_of(table=table)
                self._check_reach(location)
                self._stores[key] = (
                    _open(bucket, location, self._settings.retries, self._settings.timeout_s, longest_s),
                    location,
                )
            return self._stores[key]

    def _where(self, url: str) -> tuple[Location, str, str]:
        """Where an object is, for requests that obstore cannot make. Raises TransferError where tesk cannot either."""
        bucket, key = split(url)
        _, location = self._store(url, bucket)
        if not self._wire.can_ask(location):
            raise TransferError(
                "the key holds a control character: not with the key of a role or web identity, nor through a proxy",
                "rename the file, or configure access_key_id",
            )
        return location, bucket, key

    def _check_reach(self, location: Location) -> None:
        """Whether transfers may go to the endpoint, before obstore connects to it. Raises TransferError."""
        parts = urlsplit(location.shown)
        with contextlib.suppress(OSError, ValueError):  # no such name: obstore says so
            self._reach.resolve(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        bucket, key = split(url)
        if _BARE.search(key):
            return self._odd.find(url, declared)
        store, location = self._store(url, bucket)

        def ask() -> FileInfo:
            with _translated(location, bucket):
                meta = obstore.head(store, key)
            return FileInfo(Kind.FILE, meta["size"], of_time(meta["last_modified"]))

        def holds() -> bool:
            with _translated(location, bucket):
                try:
                    return any(len(chunk) for chunk in obstore.list(store, key, chunk_size=1))
                except InvalidPathError:
                    return True

        return found_at(key, declared, holds, ask)

    def entries(self, url: str) -> Iterator[Entry]:
        bucket, key = split(url)
        store, location = self._store(url, bucket)
        if _BARE.search(key):
            yield from self._odd.entries(url)
            return
        pages = obstore.list(store, key or None, chunk_size=1000)
        found = (_object(store, meta) for page in pages for meta in page if meta["path"] != key)
        try:
            with self._listings.listing(location.shown) as listing, _translated(location, bucket):
                tree: Iterable[Entry] = entries_of(found, f"{key}/" if key else "", listing)
        except TransferError as error:
            is_odd = isinstance(error.__cause__, InvalidPathError) and "illegal character" in str(error.__cause__)
            if not is_odd or not self._wire.can_ask(location):
                raise
            tree = self._odd.entries(url)
        yield from tree

    def child(self, url: str, relative: str) -> str:
        return f"{url.rstrip('/')}/{relative}"

    def fetch(self, url: str, sink: Sink) -> None:
        bucket, key = split(url)
        if _BARE.search(key):
            self._odd.fetch(url, sink)
            return
        store, location = self._store(url, bucket)
        with _translated(location, bucket):
            answer = obstore.get(store, key)
            meta = answer.meta
            sink.total = size = meta["size"]
            sink.attributes = of_time(meta["last_modified"])
            etag = meta["e_tag"] or ""
            sink.checksums, sink.doubt = md5(etag), partial(self._instead, store, location, bucket, key, etag)
            if not sink.checksums and (size >= ASKED_FROM or "-" in etag) and self._wire.can_ask(location):
                sink.checksums, sink.doubt = sink.doubt() or [], lambda: None
            if size >= 2 * WHOLE and etag:
                sink.offer(size, etag)
            _receive(answer, sink, size if sink.end is None else sink.end)
        if sink.position != (size if sink.end is None else sink.end):
            answered = f"{location.shown} sent {sink.size} of {size} bytes"
            raise TransferError(answered, "check the server", passing=True)

    def _instead(self, store: S3Store, location: Location, bucket: str, key: str, etag: str) -> list[Checksum] | None:
        """The checksums of an object whose ETag is no MD5; None where it is one, or where the object has changed."""
        head = self._wire.head(store, location, bucket, key)
        if head is None:
            return []
        if (head.get("ETag") or "") != etag or (md5(etag) and not is_encrypted(head)):
            return None
        return http_headers.checksums(head)

    def fetch_part(self, url: str, sink: Sink) -> None:
        bucket, key = split(url)
        if _BARE.search(key):
            self._odd.fetch_part(url, sink)
            return
        store, location = self._store(url, bucket)
        if sink.is_full or sink.end is None:
            return
        with _translated(location, bucket):
            answer = obstore.get(store, key, options={"range": (sink.position, sink.end), "if_match": sink.version})
            if answer.meta["size"] != sink.total or (answer.meta["e_tag"] or "") != sink.version:
                raise Changed(f"{location.shown} has another version of the object than at first", "see that it rests")
            _receive(answer, sink, sink.end)
        if not sink.is_full:
            answered = f"{location.shown} sent {sink.position - sink.begin} of {sink.end - sink.begin} bytes"
            raise TransferError(answered, "check the server", passing=True)

    def push(self, source: Source, url: str) -> None:
        bucket, key = split(url)
        if not key:
            raise TransferError("names a bucket, not a key", "an S3 URL of a file is s3://bucket/key")
        if _BARE.search(key):
            self._odd.push(source, url)
            return
        part, at_once = cut(source.size, self._memory.total)
        store, location = self._store(url, bucket, math.ceil(part / SLOWEST_BYTES_PER_S))
        if part > MOST_HELD and self._wire.can_ask(location):
            self._parts.push(source, location, bucket, key)
            return
        with _translated(location, bucket), self._memory.lend(min(source.size, part * at_once)):
            if source.size <= WHOLE:
                obstore.put(store, key, source.block(WHOLE), use_multipart=False)
                return
            obstore.put(store, key, _parts(source, part), chunk_size=part, max_concurrency=at_once, use_multipart=True)

    def make_directory(self, url: str) -> None:
        """An empty object whose key ends with a slash, as the console of AWS makes it."""
        bucket, key = split(url)
        _, location = self._store(url, bucket)
        if not key or not self._wire.can_ask(location):
            return
        status, text = self._wire.put_empty(location, bucket, f"{key}/")
        if status != 200:
            raise refused(str(status), code_of(text) or "refused", location.shown, location, bucket)

    def close(self) -> None:
        self._stores.clear()
        self._wire.close()
        self._odd.close()
        self._parts.close()


def _receive(answer: "GetResult", sink: Sink, end: int) -> None:
    """Writes what belongs to the sink; what is left of the answer is given up."""
    for chunk in answer.stream(min_chunk_size=CHUNK):
        sink.write(memoryview(chunk)[: end - sink.position])
        if sink.position >= end:
            break


def cut(size: int, memory: int) -> tuple[int, int]:
    """The size of the parts that a file of `size` bytes goes out in, and how many at once; all of these are held."""
    if size <= WHOLE:
        return WHOLE, 1
    part = part_size(size)
    return part, max(1, min(PARTS_AT_ONCE, memory // part))


def _parts(source: Source, size: int) -> Iterator[bytes]:
    while block := source.read(min(size, 1024 * 1024)):
        yield block


def _open(bucket: str, location: Location, retries: int, timeout_s: float, longest_s: int) -> S3Store:
    options: dict[str, Any] = dict(location.options)
    if location.anonymous:
        options["checksum_algorithm"] = "sha256"  # what the signature has otherwise
    answer_s = timeout_s + longest_s
    client: dict[str, Any] = {
        "timeout": "365d",
        "read_timeout": timedelta(seconds=answer_s),
        "connect_timeout": timedelta(seconds=min(timeout_s, 30)),
        "allow_http": location.endpoint.startswith("http:"),
    }
    backoff = {"init_backoff": timedelta(milliseconds=250), "max_backoff": timedelta(seconds=30), "base": 2}
    retry: dict[str, Any] = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=900 + 2 * answer_s),
        "backoff": backoff,
    }
    try:
        return S3Store(bucket, client_options=client, retry_config=retry, **options)  # type: ignore[arg-type]
    except Exception as error:
        raise TransferError(
            f"not a usable S3 configuration ({redact(str(error))})", "check the AWS_ variables"
        ) from error


def _object(store: S3Store, meta: "ObjectMeta") -> Object:
    """One of a listing. obstore cuts the slash off `dir/`, which consoles make: an object `dir` is not there."""
    path, size = meta["path"], meta["size"]
    if size == 0:
        try:
            obstore.head(store, path)
        except FileNotFoundError:
            path += "/"
    return Object(path, size, of_time(meta["last_modified"]))


@contextlib.contextmanager
def _translated(location: Location, bucket: str) -> Iterator[None]:
    """Errors of obstore become TransferErrors."""
    try:
        yield
    except (Stopped, TransferError):
        raise
    except PreconditionError as error:
        raise Changed(_translate(error, location, bucket).answer, "see that the object rests") from error
    except Exception as error:
        raise _translate(error, location, bucket) from error


def _translate(error: Exception, location: Location, bucket: str) -> TransferError:
    """The TransferError for an error of obstore, whose message is a sentence and a dump of Rust's own error."""
    text = str(error)
    host = match.group(1) if (match := _HOST.search(text)) else location.shown
    tries = max((int(n) for n in _RETRIES.findall(text)), default=0) + 1
    code = code_of(text)
    status, phrase = match.groups(default="") if (match := _STATUS.search(text)) else ("", "")
    if isinstance(error, FileNotFoundError):
        status = "404"
    if status or code in DENIALS:
        failure = refused(status, code, host, location, bucket, phrase.strip() or type(error).__name__)
        failure.tries, failure.passing, failure.pushed_back = tries, False, False
        return failure
    if "timed out" in text.lower() or "timedout" in text.lower() or "kind: Timeout" in text:
        return TransferError(f"{host} sent nothing in time", "check the store", tries=tries)
    if reasons := _REASON.findall(text):
        return TransferError(f"{host} cannot be reached ({reasons[-1].lower()})", "check the endpoint", tries=tries)
    first = text.partition("\n\nDebug source")[0].strip()
    return TransferError(f"{_BARE.sub(' ', first)[:300]} by {host}", "check the store", tries=tries)


open_scheme = S3Scheme
