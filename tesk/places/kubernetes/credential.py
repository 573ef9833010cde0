"""Who we are to the Kubernetes API, as it is now: token files change and plugins' credentials expire while we run."""

import asyncio
import json
import os
import ssl
import time
from datetime import datetime
from typing import Any, Final

from tesk.places.base import PlaceError
from tesk.places.kubernetes.config import Access, Plugin, load_chain

PLUGIN_TIMEOUT_S: Final = 60.0
EARLY_S: Final = 30.0
FOREVER: Final = float("inf")


class Credential:
    """The bearer token; a plugin's certificate goes into the TLS context."""

    def __init__(self, access: Access, context: ssl.SSLContext) -> None:
        self._access, self._context = access, context
        self._token = access.token
        self._expires = 0.0
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """The API refused it: a plugin is asked for another."""
        self._expires = 0.0

    async def token(self) -> str:
        """The token, or an empty one. Raises PlaceError where a plugin fails, OSError where a file cannot be read."""
        if self._access.token_file is not None:
            return self._access.token_file.read_text().strip()
        if self._access.plugin is None:
            return self._token
        async with self._lock:
            if time.time() > self._expires - EARLY_S:
                self._take(self._access.plugin, await _output(self._access.plugin))
        return self._token

    def _take(self, plugin: Plugin, output: bytes) -> None:
        try:
            status: dict[str, Any] = json.loads(output)["status"]
            expires = status.get("expirationTimestamp")
            self._token = status.get("token") or ""
            certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
            if not self._token and not (certificate and key):
                raise ValueError("neither a token nor a certificate")
            if certificate and key:
                load_chain(self._context, certificate.encode(), key.encode())
            self._expires = datetime.fromisoformat(expires).timestamp() if expires else FOREVER
        except (ValueError, KeyError, TypeError, AttributeError, ssl.SSLError) as error:
            words = f"the credential plugin {plugin.command} printed no ExecCredential that can be used"
            raise PlaceError(f"{words}: {error}") from None


async def _output(plugin: Plugin) -> bytes:
    """Runs a plugin; what it prints."""
    spec: dict[str, Any] = {"interactive": False} | ({"cluster": plugin.cluster} if plugin.cluster else {})
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    environment = {**os.environ, **plugin.env, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    name = f"the credential plugin {plugin.command}"
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command, *plugin.args, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise PlaceError(f"{name} cannot be started: {error.strerror}. {plugin.hint}".rstrip()) from None
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise PlaceError(f"{name} did not answer within {PLUGIN_TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise PlaceError(f"{name} failed with code {process.returncode}: {err.decode(errors='replace').strip()}")
    return out
