"""Signing in with a browser on this machine: the authorization code flow with PKCE (RFC 8252, RFC 7636).

The browser comes back to a port of loopback, which answers until it has come with the state of this very sign-in.
"""

import base64
import hashlib
import hmac
import secrets
import time
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from tesk.cli.provider import Document, ProviderError, post

PATIENCE_S: Final = 300.0
_REQUEST_S: Final = 5.0
_DONE: Final = b"Back to the terminal: this window can be closed.\n"


def by_browser(metadata: Document, client_id: str, scope: str, resource: str, say: Callable[[str], None]) -> Document:
    """The provider's answer with the tokens. `say` shows the user what to open. Raises ProviderError."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    with _Callback(state) as callback:
        redirect = f"http://127.0.0.1:{callback.server_port}/callback"
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect,
            "scope": scope,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if "offline_access" in scope.split():
            query["prompt"] = "consent"  # without which some providers give no refresh token
        target = {"resource": resource} if resource else {}
        url = f"{metadata['authorization_endpoint']}?{urlencode(query | target)}"
        say(url)
        webbrowser.open(url)
        answer = callback.wait()
    if "error" in answer:
        raise ProviderError(answer.get("error_description") or answer["error"], answer["error"])
    if answer.get("iss", metadata["issuer"]) != metadata["issuer"]:
        raise ProviderError("the answer came from another provider")
    form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": redirect}
    form |= {"client_id": client_id, "code_verifier": verifier}
    return post(str(metadata["token_endpoint"]), form | target)


class _Callback(HTTPServer):
    """Listens on loopback until the browser comes back."""

    timeout = 1.0

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state
        self.answer: dict[str, str] = {}

    def wait(self) -> dict[str, str]:
        until = time.monotonic() + PATIENCE_S
        while not self.answer:
            self.handle_request()
            if time.monotonic() > until:
                raise ProviderError(f"nobody signed in within {PATIENCE_S:.0f} s")
        return self.answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S
    server: _Callback

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        answer = {name: values[0] for name, values in parse_qs(parts.query).items()}
        is_ours = hmac.compare_digest(answer.get("state", "").encode(), self.server.state.encode())
        if parts.path != "/callback" or not is_ours or not {"code", "error"} & set(answer):
            self.send_error(404)
            return
        self.server.answer = answer
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(_DONE)))
        self.end_headers()
        self.wfile.write(_DONE)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the request has the code."""
