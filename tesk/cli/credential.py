"""Which credential the commands send: that of --token-file, else TESK_TOKEN's, else what `tesk login` left."""

from collections.abc import Mapping
from pathlib import Path

import click

from tesk.cli.logins import stored_credential


def authorization(server: str, token_file: str | None, environ: Mapping[str, str]) -> str:
    """The header Authorization for a server's URL; empty where there is no credential for it."""
    token = _read(Path(token_file)) if token_file else environ.get("TESK_TOKEN", "").strip()
    if not token and not (token := stored_credential(server)):
        return ""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise click.ClickException(f"{token_file or 'TESK_TOKEN'}: this is no token, which is one word of ASCII")
    return f"Bearer {token}"


def _read(path: Path) -> str:
    try:
        token = path.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise click.ClickException(f"--token-file {path}: {reason}") from None
    if not token:
        raise click.ClickException(f"--token-file {path}: the file is empty")
    return token
