"""From what a filer reports of its URLs back to those that were asked for."""

import json
import threading
from typing import Any

import pytest

from tesk.filer.plan import FilerSettings
from tesk.filer.scheme import Context, Schemes
from tesk.filer.streams import Meter
from tesk.server.outputs import with_requested_urls
from tesk.urls import redact

FTP = "ftp://me:pw@host:2121/up"
SIGNED = "https://host/b/up?X-Amz-Signature=abc&x=/y"
BOTH = "https://me:p%40w@host/up?sig=a%2Fb"
AZURE = "https://lab.blob.core.windows.net/c/up?sv=1&sig=a%2F"


def restored(outputs: list[dict[str, Any]], *pushed: tuple[str, str]) -> list[str]:
    """URLs in the log of (URL as shown, path)."""
    files = [{"url": url, "path": path, "size_bytes": "1"} for url, path in pushed]
    log = {"logs": [], "outputs": files, "system_logs": ["a?b"]}
    document = json.dumps({"outputs": outputs, "executors": []}, separators=(",", ":")).encode()
    text = json.dumps([{"logs": [], "outputs": []}, log], separators=(",", ":")).encode()
    found = json.loads(with_requested_urls(text, document))
    assert [found[0], {**found[1], "outputs": files}] == [{"logs": [], "outputs": []}, log]
    return [file["url"] for file in found[1]["outputs"]]


@pytest.mark.parametrize(
    "url", [FTP, SIGNED, BOTH, AZURE, "s3://b/up?x", "/srv/up", "sftp://me@host/~/up", "HTTP://h/a?b"]
)
def test_a_file_has_the_url_that_wwith_requested_urls_for(url: str) -> None:
    shown = redact(url).removesuffix("?…")
    assert restored([{"url": url, "path": "/out/a"}], (shown, "/out/a")) == [url]


@pytest.mark.parametrize("url", [FTP, SIGNED, BOTH, AZURE])
@pytest.mark.parametrize(
    ("output", "path", "relative"),
    [
        ({"path": "/out/"}, "/out/d/a b", "d/a b"),
        ({"path": "/out/*.x", "path_prefix": "/out"}, "/out/é.x", "é.x"),
        ({"path": "/out/*/", "path_prefix": "/"}, "/out/d/a", "out/d/a"),
        ({"path": "/out/**.{x,y}", "path_prefix": "/out"}, "/out/d/a.x", "d/a.x"),
    ],
)
def test_what_lies_below_has_the_url_that_the_scheme_made(
    url: str, output: dict[str, str], path: str, relative: str
) -> None:
    schemes = Schemes(Context(FilerSettings(), Meter(threading.Event()), print))
    child = schemes.of(url).child(url, relative)
    assert child != redact(child).removesuffix("?…")
    assert restored([{"url": url, **output}], (redact(child).removesuffix("?…"), path)) == [child]


def test_a_file_that_keeps_its_name_in_a_folder() -> None:
    assert restored([{"url": "ftp://me:pw@h/d/", "path": "/out/a"}], ("ftp://h/d/a", "/out/a")) == ["ftp://me:pw@h/d/a"]


def test_urls_that_differ_in_their_secrets_alone_are_told_apart_by_their_paths() -> None:
    outputs = [{"url": f"http://h/up?key={n}", "path": f"/out/{n}"} for n in range(3)]
    outputs += [{"url": f"http://h/d?key={n}", "path": f"/d/{n}/"} for n in range(3)]
    pushed = [("http://h/up", f"/out/{n}") for n in range(3)] + [("http://h/d/x/y", f"/d/{n}/x/y") for n in range(3)]
    assert restored(outputs, *pushed) == [
        *(f"http://h/up?key={n}" for n in range(3)),
        *(f"http://h/d/x/y?key={n}" for n in range(3)),
    ]


def test_what_was_sent_as_a_name_has_the_url_beside_it() -> None:
    output = {"url": "ftp://me:pw@h/d/x.{bai,csi}", "path": "/out/x.{bai,csi}"}
    assert restored([output], ("ftp://h/d/x.bai", "/out/x.bai")) == ["ftp://me:pw@h/d/x.bai"]


def test_what_belongs_to_no_output_stays_as_it_is() -> None:
    assert restored([{"url": FTP, "path": "/out/a"}], ("ftp://other/up", "/out/a"), ("s3://b/k", "/x")) == [
        "ftp://other/up",
        "s3://b/k",
    ]
