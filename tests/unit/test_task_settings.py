"""The operator's settings as taskmasters get them."""

import subprocess
import sys

import msgspec
import pytest

from tesk.filer.plan import FilerSettings
from tesk.kubernetes.task_settings import Mount, TaskSettings
from tesk.places.base import PlaceError
from tesk.places.kubernetes.task_settings import task_settings, toleration
from tesk.settings import Settings


def test_each_field_is_a_setting_of_the_same_name_with_its_default() -> None:
    own = {"namespace", "filer", "bounds", "volumes"}
    assert set(TaskSettings.__struct_fields__) - own <= set(Settings.__struct_fields__)
    defaults = Settings()
    assert task_settings(defaults, "n") == TaskSettings("n", defaults.instance, defaults.image)


READ = """
import sys, msgspec, tesk.kubernetes.document, tesk.filer.main
from tesk.kubernetes.task_settings import TaskSettings
read = msgspec.json.decode(sys.argv[1], type=TaskSettings)
print(read.retries, read.filer.retries, "tesk.settings" in sys.modules)
"""


def test_pods_get_every_default_so_that_they_need_not_load_the_declaration() -> None:
    told = msgspec.json.encode(task_settings(Settings(), "n"))
    read = subprocess.run([sys.executable, "-c", READ, told], capture_output=True, text=True, timeout=300, check=True)
    assert read.stdout.split() == ["0", "5", "False"]


def test_settings_come_out_as_kubernetes_wants_them() -> None:
    chosen = task_settings(
        Settings(
            instance="lab", image="tesk:1", labels=("team=a", "url=b=c"), tolerations=("gpu:NoSchedule",),
            preemptible_node_selector=("spot=true",), filer_mounts=("/keys=secret:s3", "/srv=claim:data"),
            transfer_retries=2, file_roots=("/srv",), retries=3,
        ),
        "n",
    )  # fmt: skip
    assert (chosen.namespace, chosen.instance, chosen.image, chosen.retries) == ("n", "lab", "tesk:1", 3)
    assert chosen.labels == {"team": "a", "url": "b=c"}
    assert chosen.tolerations == ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},)
    assert chosen.preemptible_node_selector == {"spot": "true"}
    assert chosen.filer_mounts == (Mount("/keys", secret="s3"), Mount("/srv", claim="data"))
    assert chosen.filer == FilerSettings(file_roots=("/srv",), retries=2)


@pytest.mark.parametrize(("setting", "user"), [(-1, None), (0, 0), (1000, 1000)])
def test_a_user_may_be_left_to_the_image_or_platform(setting: int, user: int | None) -> None:
    chosen = task_settings(Settings(run_as_user=setting, own_user=setting), "n")
    assert (chosen.run_as_user, chosen.own_user) == (user, user)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("key", {"key": "key", "operator": "Exists"}),
        ("key:NoExecute", {"key": "key", "operator": "Exists", "effect": "NoExecute"}),
        ("key=v", {"key": "key", "operator": "Equal", "value": "v"}),
        ("a.b/key=:NoSchedule", {"key": "a.b/key", "operator": "Equal", "value": "", "effect": "NoSchedule"}),
    ],
)
def test_tolerations_are_written_as_taints_are(text: str, found: dict[str, str]) -> None:
    assert toleration("tolerations", text) == found


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(labels=("team",)), "labels: 'team': expected key=value"),
        (Settings(node_selector=("=a",)), "node_selector: '=a': expected key=value"),
        (Settings(tolerations=("a:Never",)), "tolerations: 'a:Never': expected key=value:Effect"),
        (Settings(filer_mounts=("/a=s3",)), "filer_mounts: '/a=s3': expected /path=secret:NAME"),
        (Settings(instance="a b"), "instance: 'a b': expected"),
        (Settings(image=""), "image: needed"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: Settings, words: str) -> None:
    with pytest.raises(PlaceError) as refused:
        task_settings(settings, "n")
    assert words in str(refused.value)
