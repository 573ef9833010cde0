"""How names become paths of the container engine's API."""

import pytest

from tesk.places.local.containers import _Docker


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("images/quay.io/a/b:1@sha256:00/json", "/v1.43/images/quay.io/a/b:1@sha256:00/json"),
        ("images/[2001:db8::1]:5000/a/json", "/v1.43/images/%5B2001:db8::1%5D:5000/a/json"),
        ("images/get?names=big/json", "/v1.43/images/get%3Fnames=big/json"),
        ("images/a#b/json", "/v1.43/images/a%23b/json"),
        ("images/%2e%2e/json", "/v1.43/images/%252e%252e/json"),
        ("images/a\r\nHost: b/json", "/v1.43/images/a%0D%0AHost:%20b/json"),
    ],
)
async def test_a_name_is_escaped_where_the_request_is_made(path: str, asked: str) -> None:
    async with _Docker(url="tcp://127.0.0.1:1", api_version="v1.43") as docker:
        assert docker._canonicalize_url(path).raw_path_qs == asked


@pytest.mark.parametrize("path", ["images/../images/get", "images//json", "images/./json", "images/a/.."])
async def test_a_name_that_leads_elsewhere_is_no_request(path: str) -> None:
    async with _Docker(url="tcp://127.0.0.1:1", api_version="v1.43") as docker:
        with pytest.raises(ValueError, match="no path of the container engine's API"):
            docker._canonicalize_url(path)
