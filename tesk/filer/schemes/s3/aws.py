"""Endpoint and credentials of S3, from the standard places: environment, ~/.aws, web identity, container, instance.

obstore reads the environment and the metadata services itself, but not the profile files, and without any key it
asks the metadata address for as long as its retries last. So profiles are read here, and that address is only left
to it when something answers there within a second; else requests go out unsigned.
"""

import configparser
import http.client
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tesk.filer.credentials import NOTHING, Table
from tesk.filer.schemes.s3.sigv4 import Key

METADATA_HOST: Final = "169.254.169.254"
METADATA_TIMEOUT_S: Final = 1.0
_BY_ENVIRONMENT: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Location(NamedTuple):
    """`endpoint` is "" for AWS itself; `options` are S3Store's own; `key` is None where only obstore knows one."""

    endpoint: str
    anonymous: bool
    options: dict[str, Any]
    key: Key | None = None
    names_bucket: bool = False

    @property
    def shown(self) -> str:
        return self.endpoint or f"https://s3.{self.options['region']}.amazonaws.com"

    def address(self, bucket: str, key: str) -> tuple[str, str]:
        """Where obstore finds an object: scheme and host, and the path, which is not escaped yet."""
        parts = urlsplit(self.shown)
        host, above = parts.netloc, f"{parts.path}/{bucket}"
        if self.names_bucket:
            host, above = (host, parts.path) if self.endpoint else (f"{bucket}.{host}", "")
        return f"{parts.scheme}://{host}", f"{above}/{key}"


def location_of(environment: Mapping[str, str] | None = None, table: Table = NOTHING) -> Location:
    """Endpoint, region and credentials as a table has them, then the environment, then the profile files."""
    env = os.environ if environment is None else environment
    if name := table.values.get("profile", ""):
        env = {key: value for key, value in env.items() if key not in _BY_ENVIRONMENT} | {"AWS_PROFILE": name}
    profile = read_profile(env)
    options: dict[str, Any] = {}
    endpoint = (
        table.values.get("endpoint", "")
        or env.get("AWS_ENDPOINT_URL_S3")
        or env.get("AWS_ENDPOINT_URL")
        or env.get("AWS_ENDPOINT")
        or profile.get("endpoint_url", "")
    ).rstrip("/")
    if endpoint:
        options["endpoint"] = endpoint
    region = table.values.get("region", "") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    options["region"] = region or profile.get("region") or "us-east-1"
    anonymous = False
    known: Key | None = None
    if key := table.read("access_key_id").strip():
        known = Key(key, table.read("secret_access_key").strip(), table.read("session_token").strip())
        options["credential_provider"] = _given(known)
    elif table.values.get("anonymous", "") == "true" or env.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        anonymous = True
    elif env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
        token = env.get("AWS_SESSION_TOKEN") or env.get("AWS_TOKEN") or ""
        known = Key(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], token)
    elif not any(env.get(name) for name in _BY_ENVIRONMENT):
        if "aws_access_key_id" in profile:
            options["access_key_id"] = profile["aws_access_key_id"]
            options["secret_access_key"] = profile.get("aws_secret_access_key", "")
            if "aws_session_token" in profile:
                options["session_token"] = profile["aws_session_token"]
            known = Key(
                profile["aws_access_key_id"],
                profile.get("aws_secret_access_key", ""),
                profile.get("aws_session_token", ""),
            )
        else:
            anonymous = not _has_instance_role(env)
    if anonymous:
        options["skip_signature"] = True
    names_bucket = env.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("1", "true")
    return Location(endpoint, anonymous, options, known, names_bucket)


def is_configured(environ: Mapping[str, str]) -> bool:
    return not location_of({**environ, "AWS_EC2_METADATA_DISABLED": "true"}).anonymous


def _given(key: Key) -> Callable[[], dict[str, Any]]:
    """Credentials for obstore that take nothing from the environment."""
    credential = {
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
        "token": key.session_token or None,
        "expires_at": None,
    }
    return lambda: credential


def read_profile(env: Mapping[str, str]) -> dict[str, str]:
    """The chosen profile of ~/.aws/config and ~/.aws/credentials, the latter winning; empty without files."""
    name = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default"
    home = Path(env.get("HOME") or "~").expanduser()
    config = Path(env.get("AWS_CONFIG_FILE") or home / ".aws" / "config")
    credentials = Path(env.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    section = name if name == "default" else f"profile {name}"
    return {**_read_section(config, section), **_read_section(credentials, name)}


def _read_section(path: Path, section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text())
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    return dict(parser.items(section)) if parser.has_section(section) else {}


def _has_instance_role(env: Mapping[str, str]) -> bool:
    """Whether this machine's metadata service answers and has a role."""
    if env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    connection = http.client.HTTPConnection(METADATA_HOST, 80, timeout=METADATA_TIMEOUT_S)
    try:
        connection.request("PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        answer = connection.getresponse()
        token = answer.read(1024).decode("ascii", "replace")
        if answer.status != 200:
            return False
        where = "/latest/meta-data/iam/security-credentials/"
        connection.request("GET", where, headers={"X-aws-ec2-metadata-token": token})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
