"""What a taskmaster knows of its pods, in whatever order it comes."""

from tesk.kubernetes.objects import Metadata, Pod
from tesk.taskmaster.observations import Observations


def called_p(uid: str, deleted: str | None = None) -> Pod:
    return Pod(Metadata(name="p", uid=uid, deletion_timestamp=deleted))


def test_a_pod_that_went_does_not_come_back_with_a_late_answer_but_another_of_its_name_may() -> None:
    observations = Observations()
    observations.answered(called_p("1"))
    observations.change(called_p("1", "now"), gone=True)
    observations.answered(called_p("1"))
    assert observations.snapshot("p")[1] is None
    assert observations.last("p") == called_p("1", "now")
    observations.answered(called_p("2"))
    assert observations.snapshot("p")[1] == called_p("2")


def test_a_late_answer_does_not_undo_what_the_watch_has_told() -> None:
    observations = Observations()
    observations.change(called_p("1", "now"))
    turn = observations.snapshot("p")[0]
    observations.answered(called_p("1"))
    assert observations.snapshot("p") == (turn, called_p("1", "now"), [])
    observations.change(called_p("1"))
    assert observations.snapshot("p")[1] == called_p("1")


def test_how_a_pod_went_is_not_known_when_nobody_saw_it_go() -> None:
    observations = Observations()
    observations.change(called_p("1"))
    observations.replace({})
    assert (observations.snapshot("p")[1], observations.last("p")) == (None, None)
