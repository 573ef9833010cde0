"""Which images a caller may run: the one name that an image has, and the patterns that it is held against."""

import pytest

from tesk import images
from tesk.identity import EVERYBODY, Identity
from tesk.rules import ImageRules
from tesk.rules.images import patterns, problems, refusal

ALICE = Identity(user="alice", groups=frozenset({"lab-a", "lab-b"}))
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("biocontainers/samtools", "docker.io/biocontainers/samtools:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/biocontainers/samtools:1", "docker.io/biocontainers/samtools:1"),
        ("quay.io/biocontainers/samtools:1.20--h1", "quay.io/biocontainers/samtools:1.20--h1"),
        ("QUAY.io/a/b", "quay.io/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("registry:5000/a/b:1", "registry:5000/a/b:1"),
        ("Registry/a", "Registry/a:latest"),
        ("[fd00::1]:5000/a", "[fd00::1]:5000/a:latest"),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        (f"ubuntu:22.04@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        (f"registry:5000/a@{DIGEST}", f"registry:5000/a@{DIGEST}"),
    ],
)
def test_an_image_has_one_full_name(image: str, full: str) -> None:
    assert not images.problem(image)
    assert images.full(image) == full
    assert images.full(full) == full


@pytest.mark.parametrize(
    ("pattern", "image", "may"),
    [
        ("*", "ubuntu", True),
        ("quay.io/biocontainers/*", "quay.io/biocontainers/samtools:1", True),
        ("quay.io/biocontainers/*", f"quay.io/biocontainers/samtools@{DIGEST}", True),
        ("quay.io/biocontainers/*", "quay.io/biocontainers/a/b:1", True),
        ("quay.io/biocontainers/*", "quay.io/biocontainers2/a", False),
        ("quay.io/biocontainers/*", "biocontainers/samtools", False),
        ("quay.io/biocontainers/*", "evil.example.org/quay.io/biocontainers/a", False),
        ("quay.io/biocontainers/*", "quay.io:444/biocontainers/a", False),
        ("quay.io/a/b:1.*", "quay.io/a/b:1.2", True),
        ("quay.io/a/b:1.*", "quay.io/a/bx1.2", False),
        ("quay.io/a.b:*", "quay.io/axb:1", False),
        ("quay.io/a/b:1", f"quay.io/a/b:1@{DIGEST}", False),
        ("quay.io/a/b:1*", f"quay.io/a/b:1@{DIGEST}", False),
        ("quay.io/a/b@*", f"quay.io/a/b:1@{DIGEST}", True),
        ("*.example.org/lab/*", "registry.example.org/lab/a", True),
        ("*.example.org/lab/*", "evil.net/registry.example.org/lab/a", False),
        ("docker.io/library/*", "ubuntu", True),
        ("docker.io/library/*", "deadbeef", False),
        ("docker.io/library/*", "sha256:" + "ab" * 32, False),
        ("docker.io/library/*", "docker.io/library/deadbeef", True),
        ("registry.example.org/{user}/*", "registry.example.org/alice/a", True),
        ("registry.example.org/{user}/*", "registry.example.org/bob/a", False),
        ("registry.example.org/{group}/*", "registry.example.org/lab-b/a", True),
        ("registry.example.org/{group}/*", "registry.example.org/lab-c/a", False),
        ("registry.example.org/{group}/{user}:*", "registry.example.org/lab-a/alice:1", True),
        ("registry.example.org/{group}/{user}:*", "registry.example.org/alice/lab-a:1", False),
    ],
)
def test_a_pattern_covers_images(pattern: str, image: str, *, may: bool) -> None:
    assert (refusal(image, ImageRules(allow=(pattern,)), ALICE) == "") is may


@pytest.mark.parametrize("name", ["", "*", "a/b", "bob:1", "bob@x", ".*", "bob}{"])
def test_a_name_that_would_mean_more_than_itself_fills_in_no_pattern(name: str) -> None:
    caller = Identity(user=name, groups=frozenset({name}))
    rules = ImageRules(allow=("registry.example.org/{user}/*", "registry.example.org/{group}/*"))
    assert patterns(rules, caller) == []
    assert "you may run: no image" in refusal("registry.example.org/bob/a", rules, caller)


def test_nobody_who_has_signed_in_has_the_patterns_without_names() -> None:
    rules = ImageRules(allow=("registry.example.org/{user}/*", "quay.io/*"))
    assert patterns(rules, EVERYBODY) == ["quay.io/*"]


def test_a_refusal_says_what_the_caller_may_run() -> None:
    rules = ImageRules(allow=("quay.io/*", "registry.example.org/{group}/*"))
    assert refusal("ubuntu", rules, ALICE) == (
        "you may not run 'docker.io/library/ubuntu:latest' here; you may run: quay.io/*, registry.example.org/lab-a/*, "
        "registry.example.org/lab-b/*"
    )


@pytest.mark.parametrize(
    ("image", "may"), [("ubuntu:22.04", False), (f"ubuntu@{DIGEST}", True), (f"ubuntu:22.04@{DIGEST}", True)]
)
def test_images_may_have_to_be_named_by_their_digest(image: str, *, may: bool) -> None:
    assert (refusal(image, ImageRules(digests_only=True), EVERYBODY) == "") is may


def test_without_patterns_every_image_may_be_run() -> None:
    assert patterns(ImageRules(), ALICE) == ["*"]
    assert refusal("deadbeef", ImageRules(), ALICE) == ""


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("ubuntu:*", "names no registry before its first slash; write 'docker.io/library/ubuntu:*'"),
        ("biocontainers/*", "write 'docker.io/biocontainers/*'"),
        ("quay.io*", "names no registry"),
        ("{group}/*", "names no registry"),
        ("quay.io/{groups}/*", "what may be filled in is {user} and {group}"),
        ("docker://quay.io/a", "matches no image"),
        ("quay.io/a b", "matches no image"),
        ("", "matches no image"),
        ("Quay.io/*", "small letters"),
        ("index.docker.io/*", "Docker Hub is docker.io"),
    ],
)
def test_a_pattern_that_could_match_nothing_is_wrong(pattern: str, why: str) -> None:
    assert [why in words for words in problems(ImageRules(allow=(pattern,)))] == [True]


@pytest.mark.parametrize("pattern", ["*", "*/biocontainers/*", "localhost:5000/*", "registry.example.org/{user}/*:1"])
def test_a_pattern_that_names_a_registry_is_right(pattern: str) -> None:
    assert not [*problems(ImageRules(allow=(pattern,)))]
