"""Whoever watches a turn reads on disk what it has done so far, also after it was killed."""

from pathlib import Path

import pytest

from flows import turn_progress
from flows.turn_progress import Stage, Stages


def test_before_its_first_stage_a_turn_has_none(tmp_path: Path) -> None:
    assert turn_progress.read(tmp_path / "turn") == []


def test_a_running_stage_has_no_seconds_and_names_its_job(tmp_path: Path) -> None:
    turn = Stages(tmp_path / "turn")
    with turn.during("train", tmp_path / "job"):
        assert turn_progress.read(tmp_path / "turn") == [Stage("train", job=str(tmp_path / "job"))]


def test_a_finished_stage_has_its_outcome(tmp_path: Path) -> None:
    turn = Stages(tmp_path)
    with turn.during("collect"):
        turn.note("3 rows")
    with turn.during("train"):
        turn.note("adapter a", reused=True)
    collect, train = turn_progress.read(tmp_path)
    assert (collect.said, collect.reused) == ("3 rows", False)
    assert (train.said, train.reused) == ("adapter a", True)
    assert collect.seconds is not None
    assert 0 <= collect.seconds < 10


def test_a_stage_that_failed_stays_unfinished(tmp_path: Path) -> None:
    turn = Stages(tmp_path)
    with pytest.raises(ZeroDivisionError), turn.during("train"):
        raise ZeroDivisionError
    (failed,) = turn_progress.read(tmp_path)
    assert failed.seconds is None


def test_the_manifest_of_a_turn_gives_its_stages_back(tmp_path: Path) -> None:
    turn = Stages(tmp_path)
    with turn.during("gate"):
        turn.note("asked")
    kept = [Stage(**stage) for stage in turn.as_json()]  # pyright: ignore[reportArgumentType]
    assert kept == turn_progress.read(tmp_path)
