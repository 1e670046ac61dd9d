"""The picture of the scores."""

from pathlib import Path

import pytest
from scipy import stats

from components.evaluate import picture
from components.scorecard import Score
from tests.cards import card


@pytest.mark.parametrize(("right", "n"), [(0, 20), (7, 20), (20, 20), (70, 106)])
def test_intervals_are_those_of_wilson(right: int, n: int):
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert picture.wilson(Score(right / n, None, n)) == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )


def test_what_was_not_measured_could_be_anything():
    assert picture.wilson(Score(None, None, 0)) == (0.0, 1.0)


def test_models_are_drawn_wide_enough_to_read_and_the_same_each_time(tmp_path: Path):
    cards = {"base": card([0.0, 1.0]), "challenger": card([1.0, 1.0], [])}
    picture.draw(cards, tmp_path / "one.png")
    picture.draw(cards, tmp_path / "two.png")
    image = (tmp_path / "one.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20], "big") == 1050
    assert image == (tmp_path / "two.png").read_bytes()
