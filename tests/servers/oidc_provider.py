"""An OpenID Connect provider of one's own: oidc-provider, with tokens of both kinds and faults on demand."""

import contextlib
import json
import os
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.known_secrets import known
from tests.servers.process import free_port, program, serving

VERSION = "9.13.3"
CLIENT = "tesk:server"
"""tesk's client; the colon has to be encoded on the wire."""
SECRET = known("the client secret of the OIDC provider", "s3cret+of tesk")
AUDIENCE = "https://tes.example.org"
PREFIX = "urn:geant:example.org:group:"

USERS: dict[str, dict[str, Any]] = {
    "alice": {
        "name": "Alice Example",
        "eduperson_entitlement": [
            f"{PREFIX}lab-a#aai.example.org",
            f"{PREFIX}lab-a:imaging:role=manager#aai.example.org",
        ],
    },
    "bob": {"name": "Bob", "token": {"groups": ["lab-b"]}},
}


class SigningKey(NamedTuple):
    """A private key and the JWK that the provider has of it."""

    kid: str
    algorithm: str
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @property
    def jwk(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        document = json.loads(algorithm.to_jwk(self.private))
        document.pop("key_ops", None)
        return {**document, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        return jwt.encode(dict(claims), self.private, self.algorithm, {"typ": "at+jwt", "kid": self.kid, **header})


def rsa_key(kid: str, algorithm: str = "RS256", bits: int = 2048) -> SigningKey:
    return SigningKey(kid, algorithm, rsa.generate_private_key(65537, bits))


def ec_key(kid: str) -> SigningKey:
    return SigningKey(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


class OidcProvider(NamedTuple):
    """A running provider."""

    issuer: str
    key: SigningKey

    def calls(self) -> Counter[str]:
        """How often each path was asked for since this was last asked."""
        return Counter(self._control("calls", {}))

    def set(self, **what: Any) -> None:
        """Faults: userinfo (the sub that it lies of), status, delay_ms, huge."""
        self._control("set", what)

    def rotate(self, *keys: SigningKey) -> None:
        """From now on the provider has these keys alone, and signs by the first."""
        self._control("set", {"jwks": {"keys": [key.jwk for key in keys]}})

    def token(self, user: str, **what: Any) -> str:
        """A token of the user. `format`: jwt or opaque; `resource`: for whom; `scope`, `ttl_s`."""
        return known("a token of the OIDC provider", str(self._control("token", {"user": user, **what})["token"]))

    def _control(self, name: str, document: Any) -> Any:
        request = urllib.request.Request(f"{self.issuer}/control/{name}", json.dumps(document).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)


class _Forms(HTMLParser):
    """The first form of a page: where it goes, and what its hidden fields say."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = given.get("action") or ""
        elif tag == "input" and given.get("name"):
            self.fields[str(given["name"])] = given.get("value") or ""


def sign_in(url: str, fill: Mapping[str, str]) -> httpx.Response:
    """What a person does in a browser: opens the page, and fills in and sends each form until there is none."""
    with httpx.Client(follow_redirects=True, timeout=300) as browser:
        page = browser.get(url)
        for _ in range(8):
            forms = _Forms()
            forms.feed(page.text)
            if page.status_code != 200 or forms.action is None:
                return page
            fields = {name: fill.get(name, value) for name, value in forms.fields.items()}
            page = browser.post(page.url.join(forms.action), data=fields)
    raise AssertionError(f"the provider asks on and on: {page.text}")


def cached() -> Path:
    """Where scripts/ensure installs it."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "tesk" / f"oidc-provider-{VERSION}" / "node_modules/oidc-provider"


@contextlib.contextmanager
def oidc_provider(key: SigningKey, **config: Any) -> Iterator[OidcProvider]:
    """A running provider. `tls`: the file with its certificate and key, where it is to have one."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tesk-oidc-") as scratch:
        folder = Path(scratch)
        document = {"port": port, "jwks": {"keys": [key.jwk]}, "users": USERS, "client": CLIENT, "secret": SECRET}
        (folder / "config.json").write_text(json.dumps(document | config))
        script = Path(__file__).with_suffix(".mjs")
        command = [program("node"), str(script), str(cached()), str(folder / "config.json")]
        with serving(command, port, folder / "log"):
            yield OidcProvider(f"{'https' if config.get('tls') else 'http'}://127.0.0.1:{port}", key)
