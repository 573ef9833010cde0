"""Credentials for Azure's blob stores, from the standard places; without any, requests are anonymous.

In order: what is in the URL (a shared access signature); the credentials of the settings; the AZURE_STORAGE_…
variables, for their own account only; an application's secret, workload identity or managed identity. An account's key
never travels: it signs a short-lived signature for one container, which goes with each request as its query.
"""

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from tesk.filer.credentials import NOTHING, Table
from tesk.filer.errors import TransferError
from tesk.filer.wire.objects import Tokens, answers, ask_json

VERSION: Final = "2021-12-02"
RESOURCE: Final = "https://storage.azure.com"
SIGNED_FOR_S: Final = 6 * 3600
_METADATA: Final = "http://169.254.169.254/metadata"
_ASSERTED: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class AzureAccess(NamedTuple):
    """The endpoint of an account's blobs and its credentials. Anonymous requests have `account` and `endpoint` only."""

    account: str
    endpoint: str
    key: bytes = b""
    sas: str = ""
    way: str = ""
    """How a token is got: "secret", "federated", "app service" or "machine"."""
    tenant: str = ""
    client: str = ""
    secret: str = ""

    @property
    def is_anonymous(self) -> bool:
        return not (self.key or self.sas or self.way)


def access_of(account: str, host: str, table: Table, env: Mapping[str, str] | None = None) -> AzureAccess:
    """Access to `account`, or to the configured one where it is ""; `host` is what a URL says. Raises TransferError."""
    env = os.environ if env is None else env
    if text := table.read("connection_string"):
        env = {name: value for name, value in env.items() if not name.startswith("AZURE_STORAGE_")}
    text = text or env.get("AZURE_STORAGE_CONNECTION_STRING", "")
    parts = dict(part.partition("=")[::2] for part in text.strip().split(";") if part)
    named = env.get("AZURE_STORAGE_ACCOUNT_NAME") or env.get("AZURE_STORAGE_ACCOUNT") or parts.get("AccountName", "")
    account = account or table.values.get("account", "") or named
    if not account:
        raise TransferError(
            "no storage account is configured for it", "set AZURE_STORAGE_ACCOUNT_NAME, or write its https URL"
        )
    is_own = account == named
    endpoint = table.values.get("endpoint", "")
    if is_own and not endpoint:
        endpoint = env.get("AZURE_STORAGE_ENDPOINT", "") or parts.get("BlobEndpoint", "")
    access = AzureAccess(account, endpoint.rstrip("/") or f"https://{host or f'{account}.blob.core.windows.net'}")
    if table.values.get("anonymous", "") == "true":
        return access
    key = table.read("account_key").strip()
    sas = table.read("sas_token").strip()
    if is_own and not (key or sas):
        key = env.get("AZURE_STORAGE_ACCOUNT_KEY") or env.get("AZURE_STORAGE_KEY") or parts.get("AccountKey", "")
        sas = env.get("AZURE_STORAGE_SAS_TOKEN") or parts.get("SharedAccessSignature", "")
    if key:
        try:
            return access._replace(key=base64.b64decode(key, validate=True))
        except binascii.Error:
            raise TransferError(f'the key of the account "{account}" is not Base64', "check account_key") from None
    if sas:
        return access._replace(sas=sas.lstrip("?"))
    return _identity(access, table, env)


def is_configured(environ: Mapping[str, str]) -> bool:
    elsewhere = {**environ, "AZURE_STORAGE_ENDPOINT": "http://"}  # where the machine itself is not asked
    return not access_of("", "", NOTHING, elsewhere).is_anonymous


def _identity(access: AzureAccess, table: Table, env: Mapping[str, str]) -> AzureAccess:
    tenant = table.values.get("tenant_id") or env.get("AZURE_TENANT_ID") or ""
    client = table.values.get("client_id") or env.get("AZURE_CLIENT_ID") or ""
    secret = table.read("client_secret").strip() or env.get("AZURE_CLIENT_SECRET") or ""
    who = access._replace(tenant=tenant, client=client)
    if tenant and client and secret:
        return who._replace(way="secret", secret=secret)
    if tenant and client and env.get("AZURE_FEDERATED_TOKEN_FILE"):
        return who._replace(way="federated", secret=env["AZURE_FEDERATED_TOKEN_FILE"])
    if env.get("IDENTITY_ENDPOINT") and env.get("IDENTITY_HEADER"):
        return who._replace(way="app service", secret=env["IDENTITY_HEADER"], tenant=env["IDENTITY_ENDPOINT"])
    if not access.endpoint.startswith("https:") or ".blob." not in access.endpoint:
        return access
    if answers(f"{_METADATA}/instance?api-version=2021-02-01", {"Metadata": "true"}):
        return who._replace(way="machine")
    return access


class AzureIdentity:
    """The headers that authorize a request."""

    def __init__(self) -> None:
        self._tokens = Tokens()

    def headers(self, access: AzureAccess) -> dict[str, str]:
        """Raises TransferError."""
        headers = {"x-ms-version": VERSION}
        if access.way:
            parts = (access.way, access.tenant, access.client, access.secret)
            purpose = hashlib.sha256("\0".join(parts).encode()).hexdigest()
            headers["Authorization"] = f"Bearer {self._tokens.of(purpose, lambda: grant(access))}"
        return headers


def query(access: AzureAccess, container: str) -> str:
    """The signature in the query of a request to a container; "" where none is needed."""
    return sign(access.account, access.key, container, time.time()) if access.key else access.sas


def sign(account: str, key: bytes, container: str, now_s: float) -> str:
    """A service SAS for all in a container: read, add, create, write, list. Stable for half an hour."""
    begins = now_s - now_s % 1800
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begins + SIGNED_FOR_S))
    resource = f"/blob/{account}/{container}"
    fields = ["racwl", "", expires, resource, "", "", "", VERSION, "c", "", "", "", "", "", "", ""]
    signature = base64.b64encode(hmac.digest(key, "\n".join(fields).encode(), hashlib.sha256)).decode()
    return urlencode({"sv": VERSION, "sr": "c", "sp": "racwl", "se": expires, "sig": signature})


def grant(access: AzureAccess, env: Mapping[str, str] | None = None) -> Mapping[str, object]:
    """A new token, as the token endpoints answer. Raises TransferError."""
    env = os.environ if env is None else env
    if access.way in ("app service", "machine"):
        base = access.tenant if access.way == "app service" else f"{_METADATA}/identity/oauth2/token"
        version = "2019-08-01" if access.way == "app service" else "2018-02-01"
        headers = {"X-IDENTITY-HEADER": access.secret} if access.way == "app service" else {"Metadata": "true"}
        asked = {
            "api-version": version,
            "resource": RESOURCE,
            **({"client_id": access.client} if access.client else {}),
        }
        return ask_json(f"{base}?{urlencode(asked)}", headers=headers)
    form = {"client_id": access.client, "grant_type": "client_credentials", "scope": f"{RESOURCE}/.default"}
    if access.way == "secret":
        form["client_secret"] = access.secret
    else:
        try:
            assertion = Path(access.secret).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TransferError(
                f"the token {access.secret} cannot be read ({error})", "check the workload identity"
            ) from None
        form |= {"client_assertion_type": _ASSERTED, "client_assertion": assertion}
    authority = (env.get("AZURE_AUTHORITY_HOST") or "https://login.microsoftonline.com").rstrip("/")
    return ask_json(f"{authority}/{quote(access.tenant, safe='')}/oauth2/v2.0/token", form=form)


def account_in(url: str) -> tuple[str, str]:
    """The account and the host that an https blob URL names."""
    host = (urlsplit(url).hostname or "").lower()
    return host.partition(".")[0], host
