"""The chart of scores."""

from pathlib import Path

from components.gate.report import score_charts
from tests.support.cards import card


def test_the_chart_of_models_is_readable_and_deterministic(tmp_path: Path):
    cards = {"base": card([0.0, 1.0]), "challenger": card([1.0, 1.0], [])}
    score_charts.draw_scores(cards, tmp_path / "one.png")
    score_charts.draw_scores(cards, tmp_path / "two.png")
    image = (tmp_path / "one.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20], "big") == 1050
    assert image == (tmp_path / "two.png").read_bytes()
