"""The registry of storage schemes: each kind of storage declares itself here, once. Data alone, which loads nothing.

Made from it are the URLs that tasks may name, the advice of errors, the fields of credentials, what a DRS server may
lead to, the command line's help, the storage list of service-info and the table of docs/storage.md. The code of a
scheme is the package `tesk.filer.schemes.PACKAGE`, which the filer imports for the first URL of its kind
(docs/writing-a-storage-scheme.md).
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_BUCKET: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"


class Declaration(Struct, frozen=True):
    """One kind of storage. In the texts for the docs, an empty one means that the storage cannot do it."""

    package: str
    """The package below `tesk.filer.schemes` whose module `scheme` has `open_scheme`."""
    ports: Mapping[str, int]
    """The schemes of its URLs, each with its usual port, 0 where URLs have none."""
    urls: str
    """How its URLs are written, for the docs."""
    reads: str = "yes"
    """How inputs come from it, for the docs."""
    writes: str = "yes"
    """How outputs go to it, for the docs."""
    directories: str = "both ways"
    """How directories come and go, for the docs."""
    credentials: str = ""
    """The fields that a table of credentials may have for it, with spaces between."""
    bucket: str = ""
    """Where a bucket stands in the host's place: the pattern of its name."""
    needs: str = ""
    """What has to follow the host in a URL: "path", which may be empty, or "id"; nothing by default."""
    claims: str = ""
    """The pattern of URLs that belong to it although their scheme is another's."""
    access_methods: tuple[str, ...] = ()
    """The types of DRS access methods that lead to it."""
    identity: str = ""
    """The module of its package whose `is_configured(environ)` tells whether the environment has credentials for it."""


DECLARATIONS: Final = (
    Declaration("file", {"file": 0}, "`file:///path`, `/path`"),
    Declaration(
        "http",
        {"http": 80, "https": 443},
        "`http://…`, `https://…`",
        reads="GET",
        writes="PUT",
        directories="in: where the server lists; out: one PUT for each file, MKCOL for each directory",
        credentials="user password token",
        access_methods=("https", "http"),
    ),
    Declaration(
        "s3",
        {"s3": 0},
        "`s3://bucket/key`",
        directories="both ways: the keys below `key/`",
        credentials="access_key_id secret_access_key session_token profile region endpoint anonymous",
        bucket=_BUCKET,
        access_methods=("s3",),
        identity="aws",
    ),
    Declaration(
        "gs",
        {"gs": 0},
        "`gs://bucket/key`",
        credentials="service_account_key token project endpoint anonymous",
        bucket=_BUCKET,
        access_methods=("gs",),
        identity="google",
    ),
    Declaration(
        "az",
        {"az": 0},
        "`az://container/key`, `https://ACCOUNT.blob.core.windows.net/container/key`",
        credentials="account account_key sas_token connection_string tenant_id client_id client_secret"
        " endpoint anonymous",
        bucket=rf"\$?{_BUCKET}",
        claims=r"(?i)https://[a-z0-9]{3,24}\.(z\d\d\.)?blob\."
        r"(core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)|storage\.azure\.net)(:443)?/",
        identity="azure",
    ),
    Declaration(
        "ftp",
        {"ftp": 21, "ftps": 990},
        "`ftp://user:password@host:port/path`, `ftps://…`",
        credentials="user password",
        needs="path",
        access_methods=("ftp",),
    ),
    Declaration(
        "sftp",
        {"sftp": 22},
        "`sftp://user@host:port/path`",
        credentials="user password private_key passphrase known_hosts host_key",
        needs="path",
        access_methods=("sftp",),
    ),
    Declaration(
        "drs",
        {"drs": 0},
        "`drs://host/id`",
        writes="",
        directories="in: bundles",
        credentials="user password token endpoint",
        needs="id",
    ),
)

BY_NAME: Final = {name: declared for declared in DECLARATIONS for name in declared.ports}
READABLE: Final = tuple(name for name, declared in BY_NAME.items() if declared.reads)
WRITABLE: Final = tuple(name for name, declared in BY_NAME.items() if declared.writes)
BUCKETS: Final = tuple(name for name, declared in BY_NAME.items() if declared.bucket)
ACCESS_METHODS: Final = {method: declared for declared in DECLARATIONS for method in declared.access_methods}
_CLAIMS: Final = tuple(declared for declared in DECLARATIONS if declared.claims)


def name_of(url: str) -> str:
    """The scheme that a URL is written with, in small letters; "" for an absolute path and what is no URL."""
    match = _SCHEME.match(url)
    return match.group().lower() if match else ""


def serving(url: str) -> Declaration | None:
    """The storage that a URL or an absolute path lies in; None where no scheme is known for it."""
    for declared in _CLAIMS:
        if re.match(declared.claims, url):
            return declared
    return BY_NAME.get("file" if url.startswith("/") else name_of(url))


def in_words() -> str:
    """The schemes for the command line's help: `file:, …, drs: (inputs only)`."""
    return ", ".join(f"{name}:" if name in WRITABLE else f"{name}: (inputs only)" for name in READABLE)
