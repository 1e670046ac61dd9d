"""The chart shows a training's loss, also of a killed or a short one."""

from pathlib import Path

import pytest

from components.schema import Progress
from components.train import training_curve


def step(done: int, **figures: float) -> Progress:
    return Progress("train", done, 40, "steps", figures)


def steps_until(steps: int) -> list[Progress]:
    return [step(done, loss=4 / done, learning_rate=1e-3) for done in range(1, steps + 1)]


@pytest.mark.parametrize(
    "reports",
    [
        pytest.param(steps_until(40), id="whole"),
        pytest.param(steps_until(1), id="one step"),
        pytest.param([], id="nothing yet"),
        pytest.param([*steps_until(9), step(9, validation_loss=0.4)], id="validated once"),
        pytest.param([step(1, loss=0.0, learning_rate=0.0)], id="nothing to learn"),
    ],
)
def test_any_reports_make_a_png(tmp_path: Path, reports: list[Progress]):
    training_curve.draw_curve(reports, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_equal_trainings_give_equal_pictures(tmp_path: Path):
    for name in ("one", "other"):
        training_curve.draw_curve(steps_until(9), tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_repeated_steps_count_once(tmp_path: Path):
    training_curve.draw_curve(steps_until(9), tmp_path / "undisturbed.png")
    training_curve.draw_curve([*steps_until(6), *steps_until(9)[4:]], tmp_path / "killed.png")
    assert (tmp_path / "undisturbed.png").read_bytes() == (tmp_path / "killed.png").read_bytes()


def test_validation_losses_are_in_the_chart(tmp_path: Path):
    training_curve.draw_curve(steps_until(9), tmp_path / "without.png")
    training_curve.draw_curve(
        [*steps_until(9), step(5, validation_loss=0.9)], tmp_path / "with.png"
    )
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "with.png").read_bytes()


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value():
    assert training_curve.smooth_series([2.0] * 50) == pytest.approx([2.0] * 50)
    assert training_curve.smooth_series([4.0, *[0.0] * 99])[0] == 4.0


def test_smoothing_follows_a_change_and_at_least_halves_a_single_jump():
    changed = training_curve.smooth_series([*[0.0] * 100, *[1.0] * 100])
    assert 0.9 < changed[-1] <= 1.0
    jumped = training_curve.smooth_series([*[0.0] * 100, 1.0, *[0.0] * 100])
    assert max(jumped) < 0.5


def test_a_short_series_is_not_smoothed():
    assert training_curve.smooth_series([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]
