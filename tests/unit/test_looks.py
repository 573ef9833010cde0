"""What is remembered of an image: one question answers for all that lies below."""

from collections.abc import Sequence

from tesk.layout import read_answer, to_look_at
from tesk.places.local.looks import Looks


async def test_an_image_is_asked_once_about_what_it_has_and_what_it_lacks() -> None:
    asked: list[list[str]] = []
    there = {"/": 7, "/data": 7, "/data/in": 5}

    async def ask(directories: Sequence[str]) -> dict[str, int]:
        asked.append([*directories])
        paths = to_look_at(directories)
        return read_answer(paths, "".join(str(there.get(path, 0)) for path in paths))

    looks = Looks()
    assert await looks.at("sha256:1", ["/work/1", "/data/in"], ask) == there | {"/work": 0, "/work/1": 0}
    assert await looks.at("sha256:1", ["/work/2/deep", "/data/in", "/data"], ask) == there | {"/work": 0}
    assert asked == [["/work/1", "/data/in"]]
    await looks.at("sha256:1", ["/work/3", "/data/out/1"], ask)
    await looks.at("sha256:2", ["/work/1"], ask)
    assert asked[1:] == [["/data/out/1"], ["/work/1"]]
    assert await looks.at("sha256:1", ["/data/out/2"], ask) == {"/": 7, "/data": 7, "/data/out": 0}
    assert len(asked) == 3


async def test_an_image_that_could_not_be_asked_is_asked_again() -> None:
    looks, answers = Looks(), [{}, {"/": 7, "/app": 7}]

    async def ask(_: Sequence[str]) -> dict[str, int]:
        return answers.pop(0)

    assert await looks.at("sha256:1", ["/app"], ask) == {}
    assert await looks.at("sha256:1", ["/app"], ask) == {"/": 7, "/app": 7}


async def test_the_image_of_a_name_is_believed_where_it_is_known_what_that_has() -> None:
    async def ask(_: Sequence[str]) -> dict[str, int]:
        return {"/": 7, "/app": 7}

    looks = Looks()
    looks.name("image:1", "sha256:1")
    assert looks.last_id("image:1", ["/app"]) == ""
    await looks.at("sha256:1", ["/app"], ask)
    assert looks.last_id("image:1", ["/app"]) == "sha256:1"
    assert looks.last_id("image:1", ["/data"]) == ""
    assert looks.last_id("image:2", ["/app"]) == ""
