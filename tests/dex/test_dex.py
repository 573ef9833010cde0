"""Another provider, with tokens of its own kind: Dex, whose access tokens are for the client that asked for them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import Running, running
from tests.oidc.login import change, log_in, tesk
from tests.servers.dex import CLIENT, EMAIL, PASSWORD, dex


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dex")
    with dex() as issuer:
        (folder / "issuers.toml").write_text(f"""
[dex]
issuer = "{issuer}"
audience = ["{CLIENT}"]
principal_claim = "email"
login_client_id = "{CLIENT}"
login_scopes = ["openid", "email", "profile", "offline_access"]
""")
        with running(folder, issuers=str(folder / "issuers.toml"), tokens="never") as started:
            yield started


def test_a_user_of_dex_signs_in_with_a_password(server: Running, tmp_path: Path) -> None:
    """With a code: Dex lets the browser of a public client come back to http://localhost alone."""
    said = log_in(server.url, tmp_path, fill={"login": EMAIL, "password": PASSWORD})
    assert said == f"signed in to {server.url} as dex:{EMAIL}\n"
    who = json.loads(tesk(server.url, tmp_path, "whoami").stdout)
    assert (who["user"], who["shown"]) == (f"dex:{EMAIL}", "alice")
    before = change(tmp_path, ends=time.time())
    assert tesk(server.url, tmp_path, "list").returncode == 0
    assert change(tmp_path)["access_token"] != before["access_token"]
