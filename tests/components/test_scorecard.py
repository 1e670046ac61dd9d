"""Scorecards on disk and compared."""

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from components import scorecard
from components.evaluate.task_metrics import CALL_METRICS
from components.scorecard import HOLDOUT, Sample, Score, Scorecard, share_interval
from tests.support.cards import CONDITIONS, card, guard_card, in_clusters, sample

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BODY = {"base": "b", "adapter": "a", "task": HOLDOUT, "conditions": CONDITIONS}


def write(folder: Path, samples: list[Sample]) -> Path:
    scorecard.write(folder, samples, CALL_METRICS, body=BODY, now=NOW)
    return folder


def test_a_scorecard_reads_back_as_it_was_written(tmp_path: Path):
    written = card([1.0, 0.0, 1.0], [1.0])
    folder = write(tmp_path / "key", list(reversed(written.samples)))
    read = scorecard.read(folder)
    assert (read.key, read.base, read.adapter) == ("key", "b", "a")
    assert (read.task, read.metrics, read.conditions) == (HOLDOUT, CALL_METRICS, CONDITIONS)
    assert read.samples == written.samples
    assert read.scores == written.scores


def test_a_base_has_no_adapter(tmp_path: Path):
    body = {**BODY, "adapter": None}
    scorecard.write(tmp_path / "key", [sample(0, 1.0)], CALL_METRICS, body=body, now=NOW)
    assert scorecard.read(tmp_path / "key").adapter is None


def test_means_are_over_the_requests_that_measured_them():
    scores = card([1.0, 0.0, 1.0, 1.0], [0.0]).scores
    assert (scores["name"].value, scores["name"].n) == (0.75, 4)
    assert scores["name"].stderr == pytest.approx(0.25)
    assert scores["abstention"] == Score(0.0, None, 1, 1)
    assert scores["correct"].n == 5


def test_an_unmeasured_score_is_not_zero():
    assert card([1.0, 1.0], []).scores["abstention"] == Score(None, None, 0, 0)


def test_an_unfinished_scorecard_is_not_read(tmp_path: Path):
    folder = write(tmp_path / "key", [sample(0, 1.0)])
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError):
        scorecard.read(folder)


@pytest.mark.parametrize("name", [scorecard.AGGREGATES, scorecard.SAMPLES])
def test_a_changed_scorecard_is_not_read(tmp_path: Path, name: str):
    folder = write(tmp_path / "key", [sample(0, 1.0)])
    other = write(tmp_path / "other", [sample(0, 0.0)])
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ValueError, match=f"{name} hashes to .* make it again"):
        scorecard.read(folder)


def test_a_score_that_is_not_a_number_is_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "key", [sample(0, math.nan)])
    assert not (tmp_path / "key" / "manifest.json").exists()


def test_invalid_conditions_are_reported(tmp_path: Path):
    body = {**BODY, "conditions": None}
    scorecard.write(tmp_path / "key", [sample(0, 1.0)], CALL_METRICS, body=body, now=NOW)
    with pytest.raises(ValueError, match=r"conditions\n.*valid dictionary"):
        scorecard.read(tmp_path / "key")


def all_or_none(rng: np.random.Generator, clusters: int, size: int, right: float) -> Scorecard:
    """Draw conversations of which a model answers all requests right, or none."""
    answered = np.repeat(rng.random(clusters) < right, size).astype(float)
    return in_clusters(guard_card(list(answered)), size)


@pytest.mark.parametrize(("clusters", "right"), [(20, 0.5), (20, 0.9), (5, 0.6)])
def test_an_interval_of_requests_in_conversations_misses_the_score_one_time_in_twenty(
    clusters: int, right: float
):
    rng = np.random.default_rng(7)
    drawn = (all_or_none(rng, clusters, 10, right) for _ in range(100))
    intervals = [share_interval(each, "acc") for each in drawn]
    misses = sum(ends is None or not ends[0] <= right <= ends[1] for ends in intervals)
    assert misses <= 14, "four standard errors above 5"


def test_an_interval_of_independent_shares_is_wilsons():
    wilson = stats.binomtest(15, 20).proportion_ci(method="wilson")
    ends = share_interval(card([1.0] * 15 + [0.0] * 5, []), "name")
    assert ends == (pytest.approx(wilson.low), pytest.approx(wilson.high))


def test_one_conversation_has_no_interval():
    assert share_interval(in_clusters(card([1.0, 0.0, 1.0], []), 3), "name") is None
