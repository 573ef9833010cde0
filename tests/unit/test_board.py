"""What a taskmaster knows of its pods, in whatever order it comes."""

from tesk.kubernetes.objects import Metadata, Pod
from tesk.taskmaster.board import Board


def called_p(uid: str, deleted: str | None = None) -> Pod:
    return Pod(Metadata(name="p", uid=uid, deletion_timestamp=deleted))


def test_a_pod_that_went_does_not_come_back_with_a_late_answer_but_another_of_its_name_may() -> None:
    board = Board()
    board.answered(called_p("1"))
    board.change(called_p("1", "now"), gone=True)
    board.answered(called_p("1"))
    assert board.look("p")[1] is None
    assert board.last("p") == called_p("1", "now")
    board.answered(called_p("2"))
    assert board.look("p")[1] == called_p("2")


def test_a_late_answer_does_not_undo_what_the_watch_has_told() -> None:
    board = Board()
    board.change(called_p("1", "now"))
    turn = board.look("p")[0]
    board.answered(called_p("1"))
    assert board.look("p") == (turn, called_p("1", "now"), [])
    board.change(called_p("1"))
    assert board.look("p")[1] == called_p("1")


def test_how_a_pod_went_is_not_known_when_nobody_saw_it_go() -> None:
    board = Board()
    board.change(called_p("1"))
    board.replace({})
    assert (board.look("p")[1], board.last("p")) == (None, None)
