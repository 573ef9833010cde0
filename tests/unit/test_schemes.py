"""The registry of storage schemes: what is written by hand elsewhere says the same."""

import importlib
import pkgutil
import re
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

import tesk.filer.schemes
from scripts.schemes_table import PAGE, table
from tesk import schemes
from tesk.cli.run import run_command
from tesk.filer.plan import FilerSettings
from tesk.filer.scheme import Context
from tesk.filer.streams import Meter
from tesk.tes import InvalidTask, parse

TEXT = PAGE.read_text()
NAMES = sorted(schemes.BY_NAME)


def test_every_package_of_a_scheme_is_declared_once() -> None:
    packages = sorted(module.name for module in pkgutil.iter_modules(tesk.filer.schemes.__path__))
    assert packages == sorted(declared.package for declared in schemes.DECLARATIONS)
    assert len(NAMES) == sum(len(declared.ports) for declared in schemes.DECLARATIONS)


@pytest.mark.parametrize("declared", schemes.DECLARATIONS, ids=lambda declared: declared.package)
def test_what_is_declared_is_there(declared: schemes.Declaration) -> None:
    package = f"tesk.filer.schemes.{declared.package}"
    opened = importlib.import_module(f"{package}.scheme").open_scheme(
        Context(FilerSettings(), Meter(threading.Event()), print)
    )
    for method in ("find", "entries", "child", "fetch", "push", "make_directory", "close"):
        assert callable(getattr(opened, method))
    opened.close()
    assert not declared.identity or importlib.import_module(f"{package}.{declared.identity}").is_configured


def test_the_registry_loads_no_scheme() -> None:
    script = "import sys, tesk.filer.main; print([name for name in sys.modules if 'filer.schemes.' in name])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", [*NAMES, "gopher"])
@pytest.mark.parametrize(("field", "allowed"), [("inputs", schemes.READABLE), ("outputs", schemes.WRITABLE)])
@pytest.mark.parametrize("rest", ["//localhost/p", "//localhost/é"])  # the second is no plain URL
def test_tasks_may_name_what_is_declared(name: str, field: str, allowed: tuple[str, ...], rest: str) -> None:
    body = f'{{"executors":[{{"image":"i","command":["c"]}}],"{field}":[{{"url":"{name}:{rest}","path":"/p"}}]}}'
    if name in allowed:
        assert parse(body.encode())
    else:
        known = ", ".join(sorted(allowed))
        with pytest.raises(InvalidTask, match=f"unsupported URL scheme '{name}'; supported: {known}, or an"):
            parse(body.encode())


def test_the_table_of_urls_is_made_from_it() -> None:
    assert table() in TEXT, "run python -m scripts.schemes_table"


def test_the_table_of_credentials_has_every_field() -> None:
    rows = re.findall(r"(?m)^\| (`.*) \| (`.*) \|$", TEXT.partition("| store | words |")[2].partition("\n\n")[0])
    told = {
        name: sorted(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", words)))
        for cell, words in rows
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert told == {
        name: sorted(each.credentials.split()) for name, each in schemes.BY_NAME.items() if each.credentials
    }


def test_the_docs_tell_what_drs_leads_to() -> None:
    told = re.search(r"access methods \((.*?);", TEXT.replace("\n", " "))
    assert told is not None
    assert re.findall(r"`(\w+)`", told[1]) == list(schemes.ACCESS_METHODS)


def test_the_help_lists_every_scheme() -> None:
    help_text = " ".join(CliRunner().invoke(run_command, ["--help"]).output.split())
    assert [name for name in NAMES if f" {name}:" not in help_text] == []
