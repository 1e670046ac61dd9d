"""While a training goes on it says how it goes: loss, rates, memory, and the time that is left."""

from pathlib import Path

from components.schema import Progress
from components.train import fit
from components.train.recipe import Recipe
from tests.support import tiny, training_rows


def test_each_step_tells_its_figures(tmp_path: Path):
    model = tiny.build(tmp_path / "base")
    snapshot = training_rows.snapshot(tmp_path, [(f"Number {n}?", "Yes.") for n in range(16)])
    said: list[Progress] = []
    recipe = Recipe(r=4, learning_rate=1e-3, lr_scheduler_type="linear", warmup_ratio=0)
    fit.fit(snapshot, model, tmp_path / "a", recipe, report=said.append)
    assert [one.done for one in said] == [1, 2, 3, 4]
    figures = [one.figures for one in said]
    assert [one["learning_rate"] for one in figures] == [1e-3, 7.5e-4, 5e-4, 2.5e-4]
    assert all(one["grad_norm"] > 0 for one in figures)
    assert all(0.1 < one["peak_memory_gb"] < 100 for one in figures)
    assert all(one["tokens_per_second"] > 0 for one in figures)
    left = [one["seconds_left"] for one in figures]
    assert left[0] > left[-1] == 0
