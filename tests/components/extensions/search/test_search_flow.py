"""A search of real trainings keeps its budget, prunes, and ends as an uninterrupted one."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from components.extensions.search import run, schedule
from components.extensions.search.run import SearchResult, TrialOrder, TrialOutcome
from components.extensions.search.schedule import CandidateCourse, SearchPlan
from components.schema import Answer
from components.train import candidates, fit
from components.train.candidates import SearchSettings
from components.train.checkpoints import StopCondition
from components.train.plan.planner import tokens_by_step
from components.train.recipe import Recipe
from tests.support import tiny, training_rows

RECIPE = Recipe(lora_alpha=8, num_train_epochs=3, per_device_train_batch_size=4, save_steps=2)
TOKENS = 2_500
SEARCH = SearchSettings.model_validate(
    {
        "over": {"learning_rate": [1e-6, 2e-2], "r": [2, 4]},
        "budget": {"tokens": TOKENS},
        "eta": 2,
    }
)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    training_rows.snapshot(folder, [(f"Number {number}?", "Yes.") for number in range(16)])
    held = [(f"Number {number}?", (), Answer("Yes.")) for number in range(90, 98)]
    return training_rows.write(folder, held, side="validation")


@pytest.fixture(scope="module")
def planned(model: Path, snapshot: Path) -> SearchPlan:
    courses = [
        CandidateCourse(candidate, tokens_by_step(snapshot, model, candidate.recipe))
        for candidate in candidates.expand_candidates(model, RECIPE, SEARCH)
    ]
    return schedule.make_search_plan(
        courses, SEARCH, lambda _, recipe: f"r{recipe.r}-{recipe.learning_rate:g}"
    )


class Killed(BaseException):
    """The search was killed."""


class Bench:
    """Trains each candidate in its folder, as the flow does, and stores each order's outcome."""

    def __init__(self, snapshot: Path, folder: Path) -> None:
        self.snapshot, self.folder = snapshot, folder
        self.done: list[tuple[str, int]] = []
        self.tokens = 0
        self.kill_before = 99
        self.broken, self.bad_base = "", Path()

    def kept(self, key: str, rung: int) -> Path:
        """Return the folder of an adapter's weights at a rung."""
        return self.folder / f"{key}-{rung}.adapter"

    def train(self, orders: Sequence[TrialOrder]) -> list[TrialOutcome]:
        return [self._outcome(order) for order in orders]

    def _outcome(self, order: TrialOrder) -> TrialOutcome:
        kept = self.folder / f"{order.entry.key}-{order.rung}.json"
        if not kept.exists():
            if len(self.done) == self.kill_before:
                raise Killed
            self.done.append((order.entry.key, order.rung))
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(self._train(order)))
        return TrialOutcome.model_validate_json(kept.read_text())

    def _train(self, order: TrialOrder) -> dict[str, object]:
        named: dict[str, object] = {"key": order.entry.key, "rung": order.rung}
        base = self.bad_base if order.entry.key == self.broken else order.entry.base
        try:
            reached = fit.fit(
                self.snapshot,
                base,
                self.folder / order.entry.key,
                order.entry.recipe,
                report=lambda _: None,
                stop=StopCondition(
                    at_step=order.at_step, keep=str(self.kept(order.entry.key, order.rung))
                ),
            )
        except FloatingPointError as error:
            return named | {"trouble": str(error)}
        self.tokens += reached.tokens
        assert (reached.step, reached.steps) == (order.stop, order.entry.stops[-1]), "as planned"
        return named | asdict(reached) | {"stepping": 0.0}  # else equal runs would differ


@pytest.fixture(scope="module")
def undisturbed(
    planned: SearchPlan, snapshot: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchResult, Bench]:
    bench = Bench(snapshot, tmp_path_factory.mktemp("undisturbed"))
    return run.run_search(planned, bench.train), bench


@pytest.fixture
def bench(snapshot: Path, tmp_path: Path) -> Callable[[], Bench]:
    return lambda: Bench(snapshot, tmp_path)


@pytest.mark.slow
def test_a_search_keeps_its_budget_and_trains_the_best_to_its_end(
    planned: SearchPlan, undisturbed: tuple[SearchResult, Bench]
):
    result, bench = undisturbed
    assert planned.sizes == (4, 2, 1)
    assert planned.factor < 1, "the budget is what bounds it"
    assert planned.at_most(0, [place.key for place in planned.entries]) > 0.8 * TOKENS
    assert bench.tokens == result.spent <= TOKENS, "what was planned is what was seen"
    assert [rung for _, rung in bench.done] == [0, 0, 0, 0, 1, 1, 2]
    winner, *others = result.places
    assert winner.entry.recipe.learning_rate == 2e-2
    assert winner.outcome.finished
    assert (bench.folder / winner.entry.key / WEIGHTS).exists()
    assert {place.ending for place in others} == {"pruned"}
    assert all(place.outcome.validation_loss is not None for place in others)
    slow = [place for place in others if place.entry.recipe.learning_rate == 1e-6]
    assert [place.outcome.rung for place in slow] == [0, 0]


def test_a_rungs_weights_are_kept_for_measuring_unless_the_training_is_finished(
    undisturbed: tuple[SearchResult, Bench],
):
    result, bench = undisturbed
    for place in result.places[1:]:
        key, rung = place.entry.key, place.outcome.rung
        (last,) = (bench.folder / key / "checkpoints").glob(f"checkpoint-{place.outcome.step}")
        kept = load_file(bench.kept(key, rung) / WEIGHTS)
        trained = load_file(last / WEIGHTS)
        assert kept.keys() == trained.keys()
        assert all(kept[name].equal(trained[name]) for name in kept)
    winner = result.places[0]
    assert not bench.kept(winner.entry.key, winner.outcome.rung).exists()


def test_the_winner_equals_a_training_of_its_recipe_alone(
    undisturbed: tuple[SearchResult, Bench], snapshot: Path, tmp_path: Path
):
    result, bench = undisturbed
    entry = result.places[0].entry
    fit.fit(snapshot, entry.base, tmp_path / "alone", entry.recipe, report=lambda _: None)
    assert (tmp_path / "alone" / WEIGHTS).read_bytes() == (
        bench.folder / entry.key / WEIGHTS
    ).read_bytes(), "not one bit may differ"


@pytest.mark.slow
def test_a_killed_search_resumes_and_ends_as_an_uninterrupted_one(
    planned: SearchPlan, undisturbed: tuple[SearchResult, Bench], bench: Callable[[], Bench]
):
    killed = bench()
    killed.kill_before = 5
    with pytest.raises(Killed):
        run.run_search(planned, killed.train)
    again = bench()
    result = run.run_search(planned, again.train)
    assert result == undisturbed[0]
    assert killed.done + again.done == undisturbed[1].done


@pytest.mark.slow
def test_a_candidate_that_cannot_train_is_pruned_and_the_search_continues(
    planned: SearchPlan, bench: Callable[[], Bench], tmp_path: Path
):
    broken = bench()
    broken.broken, broken.bad_base = "r4-0.02", tiny.build(tmp_path / "bad")
    weights = load_file(broken.bad_base / "model.safetensors")
    weights["model.norm.weight"].fill_(math.nan)
    save_file(weights, broken.bad_base / "model.safetensors", {"format": "pt"})
    result = run.run_search(planned, broken.train)
    places = {place.entry.key: place for place in result.places}
    assert places["r4-0.02"].ending == "failed"
    assert "the loss of step 1 is nan" in places["r4-0.02"].why
    assert places["r2-0.02"].ending == "winner"
