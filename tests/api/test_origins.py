"""Who may call: Host names, and web pages as a browser speaks for them."""

from collections.abc import Iterator

import httpx
import pytest

from tesk.server.exchange import Refusal
from tesk.server.origins import Cors, Hosts, is_loopback
from tests.api.conftest import Running, running

PAGE = "https://portal.example.org"
TASK = b'{"executors":[{"image":"alpine","command":["true"]}]}'
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("tes.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("notlocalhost", False),
        ("127.0.0.1.example.org", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_loopback_names(name: str, loopback: bool) -> None:
    assert is_loopback(name) is loopback


LOCAL = [b"localhost", b"localhost:8080", b"127.0.0.1:1", b"[::1]:8080", b"[::1]", b"LocalHost:80", b"localhost."]
FOREIGN = [b"example.org", b"example.org:8080", b"127.0.0.1.evil.example", b"192.168.0.1:8080", b"0.0.0.0:8080"]
BROKEN = [b"", b"a b", b"localhost:x", b"localhost:80:80", b"user@localhost", b"[::1", b"localhost/x", b"\xff\xfe:"]


@pytest.mark.parametrize("host", LOCAL)
def test_a_loopback_server_answers_to_loopback_names(client: httpx.Client, host: bytes) -> None:
    assert client.get("/v1/tasks", headers={b"Host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/v1/tasks", "/healthz", "/openapi.json", "/nothing"])
def test_a_loopback_server_refuses_foreign_names(client: httpx.Client, host: bytes, path: str) -> None:
    answer = client.get(path, headers={b"Host": host})
    assert answer.status_code == 421
    assert answer.json()["field"] == "Host"
    assert "allowed_hosts" in answer.json()["msg"]


@pytest.mark.parametrize("host", BROKEN)
def test_a_host_that_is_none_is_400(client: httpx.Client, host: bytes) -> None:
    answer = client.get("/v1/tasks", headers={b"Host": host})
    assert answer.status_code == 400


CURL = {b"user-agent": b"curl/8"}
READING = {b"user-agent": b"Mozilla/5.0", b"accept-language": b"de"}
"""A page that reads from its own origin, over plain HTTP: neither Origin nor Sec-Fetch."""
NAMES = ["tesk-server", "tes.example.org", "*.apps.example.org", "fd00::7"]


@pytest.mark.parametrize(
    ("bound_to", "allowed", "host", "by_curl", "by_page"),
    [
        ("0.0.0.0", [], b"any.example.org", True, True),
        ("0.0.0.0", [], None, True, True),
        ("0.0.0.0", NAMES, b"tes.example.org:443", True, True),
        ("0.0.0.0", NAMES, b"TES.example.org.", True, True),
        ("0.0.0.0", NAMES, b"tesk-server:80", True, True),
        ("0.0.0.0", NAMES, b"tesk-lab.apps.example.org", True, True),
        ("0.0.0.0", NAMES, b"apps.example.org", True, False),
        ("0.0.0.0", NAMES, b"evilapps.example.org", True, False),
        ("0.0.0.0", NAMES, b"tes.example.org.evil.example", True, False),
        ("0.0.0.0", NAMES, b"other.example.org", True, False),
        ("0.0.0.0", NAMES, b"localhost:8080", True, True),
        ("0.0.0.0", NAMES, b"10.0.0.5:30080", True, True),
        ("0.0.0.0", NAMES, b"[fd00::1]:30080", True, True),
        ("0.0.0.0", NAMES, b"10.0.0.5.evil.example", True, False),
        ("0.0.0.0", ["*"], b"any.example.org", True, True),
        ("10.0.0.5", NAMES, b"10.0.0.5:8080", True, True),
        ("127.0.0.1", NAMES, b"tes.example.org", True, True),
        ("127.0.0.1", NAMES, b"10.0.0.5", False, False),
        ("127.0.0.1", ["*"], b"any.example.org", True, True),
        ("::1", [], b"any.example.org", False, False),
        ("::1", [], b"[::1]:8080", True, True),
        ("localhost", [], b"evil.example", False, False),
        ("127.0.0.1", [], None, False, False),
    ],
)
def test_hosts_by_address_and_setting(
    bound_to: str, allowed: list[str], host: bytes | None, by_curl: bool, by_page: bool
) -> None:
    hosts = Hosts(bound_to, allowed)
    for headers, answered in ((CURL, by_curl), (READING, by_page)) * 2:  # what was seen before is answered alike
        sent = headers if host is None else {**headers, b"host": host}
        if answered:
            hosts.check(sent, "1.1")
        else:
            with pytest.raises(Refusal):
                hosts.check(sent, "1.1")


def test_http_1_0_needs_no_host() -> None:
    Hosts("127.0.0.1", []).check({}, "1.0")


@pytest.fixture(scope="module")
def reached_by_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server as on a cluster: all may connect, and it knows its names."""
    with running(tmp_path_factory.mktemp("all"), host="0.0.0.0", allowed_hosts=("tesk-server",)) as started:
        yield started


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept-Language": "de,en;q=0.5", "Accept": "*/*"},
        {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"},
        {"Origin": "http://evil.example:8080"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Referer": "http://evil.example:8080/"},
    ],
)
def test_a_page_that_rebinds_its_name_gets_nothing(reached_by_all: Running, headers: dict[str, str]) -> None:
    """As through `kubectl port-forward`: the page's own name leads to 127.0.0.1."""
    client = reached_by_all.client
    port = client.base_url.port
    page = {"User-Agent": "x", **headers, "Host": f"evil.example:{port}"}
    for answer in (
        client.get("/v1/tasks", headers=page),
        client.post("/v1/tasks", content=TASK, headers={**page, **JSON}),
        client.post("/v1/tasks/0000000000000:cancel", headers=page),
    ):
        assert answer.status_code == 421
        assert "allowed_hosts" in answer.json()["msg"]
    assert count(reached_by_all) == 0
    assert client.get("/v1/tasks", headers={**page, "Host": "tesk-server"}).status_code == 200


@pytest.mark.parametrize(
    "agent", ["curl/8.5.0", "python-requests/2.32", "okhttp/4.12", "Java/17", "Go-http-client/1.1", ""]
)
def test_clients_that_are_no_browsers_come_by_any_name(reached_by_all: Running, agent: str) -> None:
    for host in ("tes.lab.example", "10.1.2.3:30080", "tesk-server.lab.svc.other.domain"):
        headers = {"User-Agent": agent, "Host": host}
        assert reached_by_all.client.get("/v1/tasks", headers=headers).status_code == 200


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that one web page may call."""
    with running(tmp_path_factory.mktemp("portal"), cors_origins=(PAGE + "/",)) as started:
        yield started


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that any web page may call."""
    with running(tmp_path_factory.mktemp("public"), cors_origins=("*",)) as started:
        yield started


class Browser:
    """Does with a cross-origin request what the Fetch standard tells a browser to do."""

    SAFE_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")

    def __init__(self, client: httpx.Client, origin: str) -> None:
        self.client, self.origin = client, origin

    def fetch(self, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response | None:
        """The answer as the page's script gets it, None where it gets a network error."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        site = {"Origin": self.origin, "Sec-Fetch-Site": "cross-site"}
        unsafe = {
            name.lower()
            for name, value in sent.items()
            if name.lower() != "content-type" or value.partition(";")[0] not in self.SAFE_TYPES
        }
        if unsafe or method not in ("GET", "HEAD", "POST"):
            asked = {
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": ",".join(sorted(unsafe)),
            }
            answer = self.client.options(path, headers={**site, **asked})
            if not (answer.is_success and self._may_read(answer) and self._may_send(answer, method, unsafe)):
                return None
        answer = self.client.request(method, path, content=content, headers={**site, **sent})
        return answer if self._may_read(answer) else None

    def _may_read(self, answer: httpx.Response) -> bool:
        return answer.headers.get("access-control-allow-origin") in ("*", self.origin)

    @staticmethod
    def _may_send(answer: httpx.Response, method: str, unsafe: set[str]) -> bool:
        methods = answer.headers.get("access-control-allow-methods", "").split(", ")
        names = {name.strip() for name in answer.headers.get("access-control-allow-headers", "").split(",")}
        return method in (*methods, "GET", "HEAD", "POST") and unsafe <= names


def count(server: Running) -> int:
    return len(server.client.get("/v1/tasks").json()["tasks"])


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "chrome-extension://x"])
def test_no_foreign_page_can_run_a_container(tmp_path_factory: pytest.TempPathFactory, origin: str) -> None:
    with running(tmp_path_factory.mktemp("closed")) as server:
        page = Browser(server.client, origin)
        for media in (
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/plain; application/json",
        ):
            assert page.fetch("POST", "/v1/tasks", TASK, Content_Type=media) is None
        assert page.fetch("POST", "/v1/tasks", TASK) is None
        assert page.fetch("GET", "/v1/tasks") is None, "nor read what others run"
        assert count(server) == 0
        forced = server.client.post("/v1/tasks", content=TASK, headers={**JSON, "Origin": origin})
        assert forced.status_code == 403, "even past the preflight"
        assert forced.json()["field"] == "Origin"
        assert count(server) == 0


def test_a_page_of_a_configured_origin_works_as_a_client(portal: Running) -> None:
    page = Browser(portal.client, PAGE)
    created = page.fetch("POST", "/ga4gh/tes/v1/tasks", TASK, Content_Type="application/json", Authorization="Bearer x")
    assert created is not None
    assert created.status_code == 200
    assert "x-request-id" in created.headers["access-control-expose-headers"]
    path = f"/v1/tasks/{created.json()['id']}"
    for answer in (
        page.fetch("GET", "/v1/tasks?view=MINIMAL&"),
        page.fetch("GET", path, Authorization="Bearer x"),
        page.fetch("POST", path + ":cancel", b"{}", Content_Type="application/json"),
    ):
        assert answer is not None
        assert answer.status_code == 200
    refused = page.fetch("POST", "/v1/tasks", b"{}", Content_Type="application/json")
    assert refused is not None
    assert refused.status_code == 400, "the page can read why it was refused"


def test_other_pages_stay_out_of_a_server_with_a_configured_origin(portal: Running) -> None:
    before = count(portal)
    for origin in ("https://evil.example", PAGE + ".evil.example", "http://portal.example.org", PAGE + ":8443"):
        page = Browser(portal.client, origin)
        assert page.fetch("POST", "/v1/tasks", TASK, Content_Type="application/json") is None
        assert page.fetch("GET", "/v1/tasks") is None
        assert portal.client.get("/v1/tasks", headers={"Origin": origin}).headers["vary"] == "origin"
    assert count(portal) == before


def test_caches_are_told_that_answers_depend_on_the_origin(portal: Running) -> None:
    for headers in ({}, {"Origin": PAGE}):
        assert portal.client.get("/v1/tasks", headers=headers).headers["vary"] == "origin"


def test_any_page_may_call_when_all_are_allowed(public: Running) -> None:
    page = Browser(public.client, "https://anywhere.example")
    created = page.fetch("POST", "/v1/tasks", TASK, Content_Type="application/json")
    assert created is not None
    assert created.status_code == 200


def test_without_configuration_nothing_speaks_of_cors(client: httpx.Client) -> None:
    answer = client.get("/v1/tasks", headers={"Origin": PAGE})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/tasks", headers=preflight)
    assert answer.status_code == 403
    assert "--cors-origin https://portal.example.org" in answer.json()["msg"]


def test_a_page_of_the_server_itself_may_write(client: httpx.Client) -> None:
    host = client.base_url.netloc.decode()
    own = {**JSON, "Origin": f"http://{host}"}
    assert client.post("/v1/tasks", content=TASK, headers=own).status_code == 200
    proxied = {**JSON, "Origin": "https://tes.example.org", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/tasks", content=TASK, headers=proxied).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Content-Length": "0"}, 404),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 404),
        ({"Content-Type": "application/json"}, 404),
        ({"Origin": PAGE}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Content-Type": "application/x-www-form-urlencoded"}, 403),
        ({"Sec-Fetch-Mode": "cors"}, 404),  # Node's own fetch
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://tes.example.org"}, 404),
    ],
)
def test_a_cancel_without_a_body_needs_no_type_and_is_no_pages_to_send(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert client.post("/v1/tasks/0000000000000:cancel", headers=headers).status_code == status


def test_a_preflight_from_the_internet_to_a_private_network_is_answered(portal: Running) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = portal.client.options("/v1/tasks", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-private-network"] == "true"


def test_header_names_that_are_none_are_not_sent_back() -> None:
    cors = Cors([PAGE])
    asked = {
        b"origin": PAGE.encode(),
        b"access-control-request-method": b"POST",
        b"access-control-request-headers": b"x\x00y",
    }
    reply = cors.preflight(asked)
    assert reply is not None
    assert b"access-control-allow-headers" not in dict(reply.headers)
