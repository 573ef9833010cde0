"""Credentials for Google Cloud Storage, from the standard places (Application Default Credentials), else anonymous.

In order: a key or token in the credentials of the settings; the file of GOOGLE_APPLICATION_CREDENTIALS, else gcloud's
own; the metadata service of the machine or of GKE's workload identity. The files are of four kinds: a service account's
key, a user's refresh token, an external account (workload identity federation, its token from a file or URL), and one
that stands in for a service account.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tesk.filer.credentials import NOTHING, Table
from tesk.filer.errors import TransferError
from tesk.filer.wire.objects import Tokens, answers, ask_json

SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
PUBLIC: Final = "https://storage.googleapis.com"
_METADATA: Final = "/computeMetadata/v1/instance/service-accounts/default/"
_FLAVOR: Final = {"Metadata-Flavor": "Google"}
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"


class GoogleAccess(NamedTuple):
    """The endpoint and the credentials for it; `source` is None for anonymous requests."""

    endpoint: str
    source: Mapping[str, Any] | None
    project: str


def access_of(table: Table, env: Mapping[str, str] | None = None) -> GoogleAccess:
    """Raises TransferError where what is configured cannot be used."""
    env = os.environ if env is None else env
    endpoint = table.values.get("endpoint") or env.get("STORAGE_EMULATOR_HOST") or PUBLIC
    if "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return GoogleAccess(endpoint.rstrip("/"), _source(table, env), table.values.get("project", ""))


def is_configured(environ: Mapping[str, str]) -> bool:
    return access_of(NOTHING, {**environ, "NO_GCE_CHECK": "true"}).source is not None


def _source(table: Table, env: Mapping[str, str]) -> Mapping[str, Any] | None:
    if table.values.get("anonymous", "") == "true" or env.get("GOOGLE_SKIP_SIGNATURE", "").lower() == "true":
        return None
    if key := table.read("service_account_key"):
        return _document(key, str(table.file))
    if token := table.read("token").strip():
        return {"type": "token", "token": token}
    home = Path(env.get("HOME") or "~").expanduser()
    gcloud = Path(env.get("CLOUDSDK_CONFIG") or home / ".config" / "gcloud") / "application_default_credentials.json"
    named = env.get("GOOGLE_APPLICATION_CREDENTIALS") or env.get("GOOGLE_SERVICE_ACCOUNT") or ""
    if named or gcloud.is_file():
        file = named or str(gcloud)
        try:
            return _document(Path(file).read_text(), file)
        except (OSError, UnicodeDecodeError) as error:
            raise TransferError(f"the Google credentials {file} cannot be read ({error})", "check the file") from None
    if "STORAGE_EMULATOR_HOST" in env or table.values.get("endpoint"):
        return None
    host = env.get("GCE_METADATA_HOST") or "169.254.169.254"
    if env.get("NO_GCE_CHECK", "").lower() != "true" and answers(f"http://{host}{_METADATA}email", _FLAVOR):
        return {"type": "metadata", "host": host}
    return None


def _document(text: str, file: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "type" not in found:
        raise TransferError(f"{file} holds no Google credentials", "check the file")
    return {**found, "file": file}


class GoogleIdentity:
    """The headers that authorize a request."""

    def __init__(self) -> None:
        self._tokens = Tokens()

    def headers(self, access: GoogleAccess) -> dict[str, str]:
        """Raises TransferError."""
        headers = {"x-goog-user-project": access.project} if access.project else {}
        if (source := access.source) is not None:
            purpose = hashlib.sha256(json.dumps(source, sort_keys=True, default=str).encode()).hexdigest()
            token = source["token"] if source["type"] == "token" else self._tokens.of(purpose, lambda: grant(source))
            headers["Authorization"] = f"Bearer {token}"
        return headers


def grant(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """A new token, as the token endpoints answer. Raises TransferError."""
    kind = source["type"]
    try:
        if kind == "service_account":
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion(source)}
            return ask_json(source.get("token_uri") or "https://oauth2.googleapis.com/token", form=form)
        if kind == "authorized_user":
            form = {
                "grant_type": "refresh_token",
                **{n: source[n] for n in ("client_id", "client_secret", "refresh_token")},
            }
            return ask_json(source.get("token_uri") or "https://oauth2.googleapis.com/token", form=form)
        if kind == "metadata":
            return ask_json(f"http://{source['host']}{_METADATA}token", headers=_FLAVOR)
        if kind == "impersonated_service_account":
            return _impersonate(source, grant(source["source_credentials"])["access_token"])
        if kind == "external_account":
            form = {
                "grant_type": _EXCHANGE,
                "audience": source["audience"],
                "scope": "https://www.googleapis.com/auth/cloud-platform",
                "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "subject_token": _subject(source["credential_source"]),
                "subject_token_type": source["subject_token_type"],
            }
            federated = ask_json(source["token_url"], form=form)
            if source.get("service_account_impersonation_url"):
                return _impersonate(source, federated["access_token"])
            return federated
    except (KeyError, TypeError, ValueError, OSError) as error:
        what = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else type(error).__name__
        raise TransferError(
            f"the Google credentials {source.get('file', '')} are incomplete ({what})", "check them"
        ) from None
    raise TransferError(f"Google credentials of the type {kind!r} are not supported", "use a service account's key")


def assertion(source: Mapping[str, Any]) -> str:
    """A JWT signed with a service account's key (RFC 7523)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    now = int(time.time())
    audience = source.get("token_uri") or "https://oauth2.googleapis.com/token"
    claims = {"iss": source["client_email"], "scope": SCOPE, "aud": audience, "iat": now, "exp": now + 3600}
    head = {"alg": "RS256", "typ": "JWT", "kid": source.get("private_key_id", "")}
    signed = b".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
    key = load_pem_private_key(source["private_key"].encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("no RSA key")
    return (signed + b"." + _base64(key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _impersonate(source: Mapping[str, Any], token: str) -> Mapping[str, Any]:
    answer = ask_json(
        source["service_account_impersonation_url"],
        body={"scope": [SCOPE], "lifetime": "3600s", "delegates": source.get("delegates", [])},
        headers={"Authorization": f"Bearer {token}"},
    )
    return {"access_token": answer["accessToken"], "expires_in": 3600}


def _subject(where: Mapping[str, Any]) -> str:
    """The token of the foreign identity provider, from a file or a URL, as text or as a field of JSON."""
    form = where.get("format") or {}
    if "file" in where:
        text = Path(where["file"]).read_text()
        return str(json.loads(text)[form["subject_token_field_name"]]) if form.get("type") == "json" else text.strip()
    return str(ask_json(where["url"], headers=where.get("headers") or {})[form["subject_token_field_name"]])
