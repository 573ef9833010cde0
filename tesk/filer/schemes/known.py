"""Object stores that the environment has credentials for, as the schemes find them, without asking anybody."""

from collections.abc import Mapping
from typing import Final

from tesk.filer.credentials import NOTHING
from tesk.filer.errors import TransferError
from tesk.filer.schemes.az import azure
from tesk.filer.schemes.gs import google
from tesk.filer.schemes.s3 import aws

_AZURE: Final = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_HEADER",
)
"""Without any of these the machine itself would be asked."""


def by_environment(environ: Mapping[str, str]) -> list[str]:
    """`s3://`, `gs://`, `az://`, as far as there is a key, a file or an identity for them."""
    found = []
    if not aws.location_of({**environ, "AWS_EC2_METADATA_DISABLED": "true"}).anonymous:
        found.append("s3://")
    try:
        if google.access_of(NOTHING, {**environ, "NO_GCE_CHECK": "true"}).source is not None:
            found.append("gs://")
    except TransferError:
        pass  # what is named cannot be used; each transfer says why
    try:
        if any(environ.get(name) for name in _AZURE) and not azure.access_of("", "", NOTHING, environ).is_anonymous:
            found.append("az://")
    except TransferError:
        pass  # likewise
    return found
