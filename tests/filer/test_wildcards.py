"""Output patterns as POSIX 2.13 has them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tesk.filer.bounds import Listing, Listings
from tesk.filer.errors import TransferError
from tesk.filer.jail import Scratch
from tesk.filer.wildcards import component, expand
from tesk.tes import Output
from tests.filer.stores import push, tree


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.bam", "a.bam", True),
        ("*.bam", "a.bam.bai", False),
        ("*", "", True),
        ("*", ".hidden", False),  # 2.13.3: a leading period is matched by a period only
        ("?hidden", ".hidden", False),
        ("[.]hidden", ".hidden", False),
        ("[!a]hidden", ".hidden", False),
        (".*", ".hidden", True),
        ("\\.*", ".hidden", True),
        (".*", "hidden", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a?c", "a\nc", True),
        ("a?c", "aéc", True),
        ("[abc]", "b", True),
        ("[abc]", "d", False),
        ("[a-c]x", "bx", True),
        ("[a-c]x", "dx", False),
        ("[!a-c]x", "dx", True),
        ("[!a-c]x", "bx", False),
        ("[]]", "]", True),  # 9.3.5: a ] right after the [ is itself
        ("[]a]", "a", True),
        ("[!]]", "]", False),
        ("[!]]", "a", True),
        ("[a-]", "-", True),
        ("[-a]", "-", True),
        ("[--/]", ".", False),
        ("[a", "[a", True),  # 2.13.1: a [ that nothing closes is itself
        ("[", "[", True),
        ("a[", "a[", True),
        ("[[:digit:]]", "7", True),
        ("[[:digit:]]", "x", False),
        ("[![:digit:]]", "x", True),
        ("[[:alpha:]_]", "_", True),
        ("[[:upper:][:digit:]]", "Q", True),
        ("[[:space:]]", " ", True),
        ("[[:punct:]]", "]", True),
        ("[[.-.]a]", "-", True),
        ("[[=a=]]", "a", True),
        ("[z-a]", "m", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("a\\?b", "a?b", True),
        ("a\\?b", "axb", False),
        ("[\\]]", "]", True),
        ("a.b", "axb", False),
        ("a+", "aa", False),
        ("(a|b)", "a", False),
        ("{a,b}", "a", False),  # braces are the shell's own, no pattern
        ("**", "ab", True),
        ("[^a]", "b", True),
        ("[a^]", "^", True),
        ("[a&&b]", "&", True),
        ("*a*a", "aXa", True),
        ("*ab*ab", "ab", False),
        ("*ab*ab", "abab", True),
        ("a*b?d*", "axbbcd", True),
        ("a*b?d*", "axbcbd", False),
        ("*[!a]*", "aaa", False),
        ("*[!a]*", "aaab", True),
        ("*?", "", False),
        ("*?*?", "ab", True),
        ("***a", "bba", True),
    ],
)
def test_a_component_matches_as_posix_says(pattern: str, name: str, matches: bool) -> None:
    assert bool(component(pattern).fullmatch(name)) is matches


def test_any_number_of_stars_is_matched_in_few_steps() -> None:
    """In a process of its own: `re` cannot be interrupted. One star more took five times as long."""
    code = (
        "from tesk.filer.wildcards import component\n"
        "for n in (6, 20, 127):\n"
        "    assert component('*a' * n + '*b').fullmatch('a' * 254) is None\n"
        "    assert component('*?a' * n + '*b').fullmatch('a' * 254) is None\n"
        "    assert component('*[ab]' * n + '*c').fullmatch('a' * 254) is None\n"
        "    assert component('*a' * n).fullmatch('a' * 254)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def listing() -> Listing:
    return Listing(Listings(), "the pattern", 1_000_000)


FILES = [
    "out/a.bam",
    "out/b.bam",
    "out/b.txt",
    "out/.c.bam",
    "out/sub/d.bam",
    "out/sub/e/f.bam",
    "out/[x].bam",
    "out/{b1}",
    "out/{b,c}",
]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/out/*.bam", ["/out/[x].bam", "/out/a.bam", "/out/b.bam"]),  # * does not match a slash
        ("/out/*/*.bam", ["/out/sub/d.bam"]),
        ("/*/*/*/*.bam", ["/out/sub/e/f.bam"]),
        ("/out/**/*.bam", ["/out/sub/d.bam", "/out/sub/e/f.bam"]),  # as Java and Nextflow have it
        ("/out/**.bam", ["/out/[x].bam", "/out/a.bam", "/out/b.bam", "/out/sub/d.bam", "/out/sub/e/f.bam"]),
        ("/out/s**/f.bam", ["/out/sub/e/f.bam"]),
        ("/**f.bam", ["/out/sub/e/f.bam"]),
        ("/out/s**", ["/out/sub", "/out/sub/d.bam", "/out/sub/e/f.bam"]),  # POSIX's `*` may be a directory
        ("/out/**/", ["/out/sub", "/out/sub/e"]),
        ("/out/{a.b,b.t}*", ["/out/a.bam", "/out/b.txt"]),
        ("/out/{sub/{d,g},a}.bam", ["/out/a.bam", "/out/sub/d.bam"]),
        ("/out/{,.c}*.bam", ["/out/.c.bam", "/out/[x].bam", "/out/a.bam", "/out/b.bam"]),
        ("/out/{b*}", ["/out/{b,c}", "/out/{b1}"]),  # without a comma a brace is itself, as always for POSIX
        ("/out/\\{b,c\\}*", ["/out/{b,c}"]),
        ("/out/[{]b,c}*", ["/out/{b,c}"]),
        ("/out/[[:space:]{]b,c}*", ["/out/{b,c}"]),
        ("/out/{b,c}*", ["/out/b.bam", "/out/b.txt", "/out/{b,c}"]),
        ("/out/[ab].*", ["/out/a.bam", "/out/b.bam", "/out/b.txt"]),
        ("/out/\\[x].b*", ["/out/[x].bam"]),
        ("/out/.*.bam", ["/out/.c.bam"]),
        ("/out/s*", ["/out/sub"]),
        ("/o*/sub/d.bam", ["/out/sub/d.bam"]),
        ("/out/*/nothing", []),
        ("/none/*", []),
        ("/out/a.bam/*", []),
        ("//out//./*.txt", ["/out/b.txt"]),
        ("/out/*/", ["/out/sub"]),  # 4.13: what a slash follows is a directory
        ("/out/a*/", []),
    ],
)
def test_a_pattern_finds_paths(tmp_path: Path, pattern: str, paths: list[str]) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert expand(Scratch(str(tmp_path)), pattern, listing()) == paths


def test_a_pattern_of_any_depth_is_not_led_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/up").symlink_to("..")
    (tmp_path / "a/b/top").symlink_to("/")
    (tmp_path / "a/b/f").touch()
    counted = listing()
    assert "/a/b/f" in expand(Scratch(str(tmp_path)), "/a/**/f", counted)
    assert "/a/b/up/b/f" in expand(Scratch(str(tmp_path)), "/a/**/**/f", counted)
    assert counted.entries < 1000


def test_a_pattern_goes_through_links_inside_and_not_outside(tmp_path: Path) -> None:
    (tmp_path / "root/real").mkdir(parents=True)
    (tmp_path / "root/real/a").touch()
    (tmp_path / "root/link").symlink_to("/real")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/b").touch()
    (tmp_path / "root/escape").symlink_to(tmp_path / "outside")
    (tmp_path / "root/up").symlink_to("../outside")
    assert expand(Scratch(str(tmp_path / "root")), "/*/*", listing()) == ["/link/a", "/real/a"]


def test_links_to_where_they_are_end_at_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten links to `.` and six stars are a million paths; few are looked at."""
    monkeypatch.setattr("tesk.filer.bounds.MAX_ENTRIES", 1000)
    for n in range(10):
        (tmp_path / f"{n}").symlink_to(".")
    step = Listings()
    assert len(expand(Scratch(str(tmp_path)), "/*/*", Listing(step, "the pattern", 1000))) == 100
    counted = Listing(step, "the pattern /*/*/*/*/*/*", 1000)
    with pytest.raises(TransferError, match=r"^the pattern /.* lists so much that there are more than 1,000 entries"):
        expand(Scratch(str(tmp_path)), "/*/*/*/*/*/*", counted)
    assert counted.entries <= 1001


def test_an_output_of_endless_paths_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.bounds.MAX_ENTRIES", 1000)
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/f").write_bytes(b"x")
    (tmp_path / "share").mkdir()
    for n in range(10):
        (tmp_path / f"root/d/{n}").symlink_to(".")
    outputs = [
        Output("/d/*/*/*/*", f"file://{tmp_path}/share/d", path_prefix="/d"),
        Output("/f", f"{tmp_path}/share/f"),
    ]
    report = push(tmp_path / "root", *outputs, file_roots=(str(tmp_path / "share"),))
    assert "the pattern /d/*/*/*/* lists so much that there are more than 1,000 entries" in report.failure
    assert tree(tmp_path / "share") == {"f": b"x"}
