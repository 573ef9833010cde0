"""Settings: which source wins, what is refused and in which words, and that the documented table is the code's."""

import re
from pathlib import Path

import pytest

from scripts.settings_table import PAGE, tables
from tesk import settings
from tesk.filer.plan import TRANSFER, FilerSettings
from tesk.kubernetes.task_settings import TaskSettings
from tesk.settings import Settings
from tesk.settings.load import Given, SettingsError, _convert, load

ROOT = Path(__file__).parents[2]


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "tesk.toml"
    file.write_text(text)
    return file


def test_without_any_source_the_defaults_hold() -> None:
    loaded = load({}, {})
    assert (loaded.host, loaded.port, loaded.engine) == ("127.0.0.1", 8080, "local")


def test_a_flag_beats_the_environment_that_beats_the_file_that_beats_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, '[server]\nport = 3\n[local]\nnetwork = "file"\n[tasks]\ngrace_s = 3\n')
    environ = {"TESK_SERVER_PORT": "2", "TESK_LOCAL_NETWORK": "environment"}
    loaded = load({"port": "1"}, environ, file)
    assert (loaded.port, loaded.network, loaded.grace_s, loaded.ram_gb) == (1, "environment", 3.0, 0.0)


def test_tesk_config_names_the_file_when_no_flag_does(tmp_path: Path) -> None:
    assert load({}, {"TESK_CONFIG": str(written(tmp_path, "server.port = 3"))}).port == 3


def test_an_empty_variable_is_as_good_as_unset() -> None:
    assert load({}, {"TESK_SERVER_PORT": "", "TESK_PORT": "", "TESK_CONFIG": ""}).port == 8080


def test_a_flag_may_set_what_is_zero_or_empty() -> None:
    loaded = load({"port": "0", "engine_socket": ""}, {"TESK_SERVER_PORT": "9", "TESK_LOCAL_ENGINE_SOCKET": "/s"})
    assert (loaded.port, loaded.engine_socket) == (0, "")


@pytest.mark.parametrize(
    ("flags", "environ", "file"),
    [
        ({"cors_origins": ("https://a", "https://b")}, {}, ""),
        ({}, {"TESK_SERVER_CORS_ORIGINS": "https://a, https://b,"}, ""),
        ({}, {}, 'server.cors_origins = ["https://a", "https://b"]'),
    ],
)
def test_a_list_can_be_written_in_each_source(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], file: str
) -> None:
    assert load(flags, environ, written(tmp_path, file)).cors_origins == ("https://a", "https://b")


def test_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    loaded = load({"file_roots": ("~/shared", "here", "/there"), "users_file": "users.toml"}, {})
    assert loaded.data == "/home/somebody/.local/share/tesk"
    assert (loaded.users_file, loaded.issuers) == (f"{tmp_path}/users.toml", "")
    assert loaded.file_roots == ("/home/somebody/shared", f"{tmp_path}/here", "/there")


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"port": "x"}, {}, "--port: expected a whole number, got text"),
        ({}, {"TESK_SERVER_PORT": "70000"}, "TESK_SERVER_PORT: expected a whole number <= 65535"),
        ({}, {"TESK_TASKS_GRACE_S": "-1"}, "TESK_TASKS_GRACE_S: expected a number >= 0.0"),
        ({}, {"TESK_TASKS_GRACE_S": "nan"}, "TESK_TASKS_GRACE_S: expected a number >= 0.0"),
        ({"executor_capabilities": ["SYS_ADMIN"]}, {}, "--executor-capability: expected one of MKNOD, NET_RAW"),
        ({}, {"TESK_SERVER_LOG_LEVEL": "loud"}, "TESK_SERVER_LOG_LEVEL: expected one of debug, info, warning, error"),
        (
            {},
            {"TESK_SERVER_PORT": "tcp://10.0.0.1:80"},
            "TESK_SERVER_PORT: expected a whole number, got text; Kubernetes sets this for a Service named "
            "tesk-server: set enableServiceLinks: false on the pod",
        ),
        (
            {},
            {"TESK_PORT": "tcp://10.0.0.1:80"},
            "TESK_PORT: expected a whole number, got text; Kubernetes sets this for a Service named tesk: "
            "set enableServiceLinks: false on the pod",
        ),
    ],
)
def test_a_refusal_names_the_flag_or_variable(flags: dict[str, str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(flags, environ)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("flags", "environ", "file", "message"),
    [
        ({"retries": "1"}, {}, "", "--retries: only the kubernetes engine reads this setting, and engine is local"),
        (
            {},
            {"TESK_KUBERNETES_LABELS": "a=b"},
            "",
            "TESK_KUBERNETES_LABELS: only the kubernetes engine reads this setting, and engine is",
        ),
        (
            {},
            {},
            'tasks.engine = "kubernetes"\nlocal.ram_gb = 0.0',
            "tesk.toml: local.ram_gb: only the local engine reads this setting",
        ),
        (
            {"engine": "kubernetes"},
            {"TESK_LOCAL_NETWORK": "host"},
            "",
            "TESK_LOCAL_NETWORK: only the local engine reads this",
        ),
    ],
)
def test_a_setting_that_the_engine_does_not_read_is_refused(
    tmp_path: Path, flags: dict[str, str], environ: dict[str, str], file: str, message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(flags, environ, written(tmp_path, file))
    assert message in str(refused.value)
    assert str(refused.value).endswith("; leave it out")


def test_the_table_says_which_engine_reads_a_setting() -> None:
    """What is marked for one engine is read nowhere else, and every other setting by both, or by what both share."""
    filer = {f"transfer_{name}" if name in TRANSFER else name for name in FilerSettings.__struct_fields__} - {"access"}
    local = read_in("places/local") | filer
    cluster = read_in("places/kubernetes") | {*TaskSettings.__struct_fields__} | filer
    shared = read_in("", besides=("places", "kubernetes", "filer")) - READ_FOR_AN_ENGINE
    for setting in settings.TABLE:
        readers = {engine for engine, names in (("local", local), ("kubernetes", cluster)) if setting.name in names}
        if setting.name in shared:
            readers = {"local", "kubernetes"}
        marked = {setting.group.engine} if setting.group.engine else {"local", "kubernetes"}
        assert readers == marked, f"{setting.name}: read by {readers}"


READ_FOR_AN_ENGINE = {"default_disk_gb", "filer_mounts", "filer_environment_secret"}
"""For the engine that has them: the dispatcher counts the first, the rules are held against the others."""


def read_in(folder: str, besides: tuple[str, ...] = ()) -> set[str]:
    """The settings that the sources of a folder of tesk read. A filer's settings are other ones."""
    sources = (path for path in (ROOT / "tesk" / folder).rglob("*.py") if not {*besides} & {*path.parts})
    return {name for path in sources for name in re.findall(r"settings\.(\w+)", path.read_text())}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[server]\nport = "80"', "server.port: expected a whole number, got text"),
        ('[storage]\nfile_roots = "/srv"', "storage.file_roots: expected a list, got text"),
        ("[server]\nprot = 80", "server.prot: no such setting; docs/settings.md lists them all"),
        ("[server]\ngrace_s = 8", "server.grace_s: no such setting; docs/settings.md lists them all"),
        ("[servre]\nport = 80", "servre: no such setting; docs/settings.md lists them all"),
        ("server = 80", "server: no such setting; docs/settings.md lists them all"),
        ("prot = 80", "prot: no such setting; docs/settings.md lists them all"),
        ('port = "80"', "port: expected a whole number, got text"),
        ("port = ", "not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_refusal_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        load({}, {}, file)
    assert str(refused.value) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("environ", "file", "warnings"),
    [
        ({"TESK_PORT": "3"}, "", ["TESK_PORT: is called TESK_SERVER_PORT now"]),
        ({}, "port = 3", ["tesk.toml: port: is called server.port now"]),
        ({"TESK_PORT": "3"}, "[server]\nport = 9", ["TESK_PORT: is called TESK_SERVER_PORT now"]),
        ({"TESK_SERVER_PORT": "3"}, "port = 9", ["tesk.toml: port: is called server.port now"]),
        ({"TESK_SERVER_PORT": "3", "TESK_SERVICE_NAME": "lab"}, "", []),
        ({}, "port = 3\nservice_name = 'lab'\n[tasks]\ngrace_s = 1", ["server.port now", "service.name now"]),
        ({}, "storage = ['s3://lab']\nserver.port = 3", ["tesk.toml: storage: is called service.storage now"]),
    ],
)
def test_an_old_name_is_read_with_a_warning_that_has_the_new_one(
    tmp_path: Path, environ: dict[str, str], file: str, warnings: list[str]
) -> None:
    warned: list[str] = []
    assert load({}, environ, written(tmp_path, file), warned.append).port == 3
    assert len(warned) == len(warnings)
    for line, words in zip(warned, warnings, strict=True):
        assert f"{words}; the next version does not know the old name" in line


@pytest.mark.parametrize(
    ("environ", "file", "message"),
    [
        (
            {"TESK_PORT": "3", "TESK_SERVER_PORT": "3"},
            "",
            "TESK_PORT: TESK_SERVER_PORT sets the same; leave out TESK_PORT",
        ),
        ({}, "port = 3\n[server]\nport = 3", "{file}: port: server.port sets the same; leave out port"),
    ],
)
def test_a_setting_given_by_both_its_names_is_refused(
    tmp_path: Path, environ: dict[str, str], file: str, message: str
) -> None:
    path = written(tmp_path, file)
    with pytest.raises(SettingsError) as refused:
        load({}, environ, path)
    assert str(refused.value) == message.format(file=path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file or directory"):
        load({}, {}, tmp_path / "absent.toml")


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"log_level": "secret"}, {"TESK_STORE_DATABASE_URL": "postgresql://u:secret@h/d"})
    assert "secret" not in str(refused.value)


def test_every_default_passes_its_own_rules() -> None:
    for setting in settings.TABLE:
        value = list(setting.default) if setting.is_list else setting.default
        assert _convert(setting, Given(setting.name, value, is_text=False)) == setting.default


def test_names_are_distinct() -> None:
    """Also from the old ones of other settings, so that a name tells which is meant."""
    assert len({setting.flag for setting in settings.TABLE}) == len(Settings.__struct_fields__)
    for names in (
        [name for setting in settings.TABLE for name in {setting.path, setting.name}],
        [name for setting in settings.TABLE for name in {setting.environment, f"TESK_{setting.name.upper()}"}],
    ):
        assert len(names) == len({*names})
    assert not {"--config", "--help", "--version"} & {setting.flag for setting in settings.TABLE}


def test_the_documented_table_is_the_codes() -> None:
    assert tables() in PAGE.read_text(), "run scripts/settings-table"
