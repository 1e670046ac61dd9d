"""A running training reports loss, rates, memory and the remaining time."""

from pathlib import Path

from components.schema import Progress
from components.train import fit
from components.train.recipe import Recipe
from tests.support import tiny, training_rows


def test_each_step_reports_its_figures(tmp_path: Path):
    model = tiny.build(tmp_path / "base")
    snapshot = training_rows.snapshot(tmp_path, [(f"Number {n}?", "Yes.") for n in range(16)])
    reports: list[Progress] = []
    recipe = Recipe(r=4, learning_rate=1e-3, lr_scheduler_type="linear", warmup_ratio=0)
    fit.fit(snapshot, model, tmp_path / "a", recipe, report=reports.append)
    assert [report.done for report in reports] == [1, 2, 3, 4]
    figures = [report.figures for report in reports]
    assert [step["learning_rate"] for step in figures] == [1e-3, 7.5e-4, 5e-4, 2.5e-4]
    assert all(step["grad_norm"] > 0 for step in figures)
    assert all(0.1 < step["peak_memory_gb"] < 100 for step in figures)
    assert all(step["tokens_per_second"] > 0 for step in figures)
    left = [step["seconds_left"] for step in figures]
    assert left[0] > left[-1] == 0
