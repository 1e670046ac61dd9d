"""A training stops at its stop condition and resumes, or stops when its loss no longer improves."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.schema import Answer, Progress
from components.train import callbacks, checkpoints, fit
from components.train.callbacks import TrainingInterrupted
from components.train.checkpoints import StopCondition, TrainingProgress
from components.train.recipe import Recipe
from tests.support import training_rows

RECIPE = Recipe(r=4, lora_alpha=8, learning_rate=2e-2, num_train_epochs=3, save_steps=2)
STEPS = 12
ASKED = [f"Number {number}?" for number in range(16)]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    training_rows.snapshot(folder, [(asked, "Yes.") for asked in ASKED])
    held = [(f"Number {number}?", (), Answer("Yes.")) for number in range(90, 95)]
    return training_rows.write(folder, held, side="validation")


class Trained:
    """Runs one training in a folder, repeatedly; has the figures of each step."""

    def __init__(self, model: Path, snapshot: Path, folder: Path) -> None:
        self.model, self.snapshot, self.folder = model, snapshot, folder
        self.losses: dict[int, float] = {}
        self.validated: dict[int, float] = {}
        self.kill_at: int | None = None
        self.fails_in: str | None = None

    def run(self, recipe: Recipe = RECIPE, stop: StopCondition | None = None) -> TrainingProgress:
        return fit.fit(self.snapshot, self.model, self.folder, recipe, report=self._hear, stop=stop)

    def _hear(self, progress: Progress) -> None:
        if progress.stage == self.fails_in:
            self.fails_in = None
            raise OSError("killed")
        if progress.stage != "train":
            return
        if "loss" in progress.figures:
            self.losses[progress.done] = progress.figures["loss"]
        else:
            self.validated[progress.done] = progress.figures["validation_loss"]
        if progress.done == self.kill_at:
            self.kill_at = None
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def weights(self) -> bytes:
        return (self.folder / WEIGHTS).read_bytes()


@pytest.fixture
def training(model: Path, snapshot: Path, tmp_path: Path) -> Callable[[str], Trained]:
    return lambda name: Trained(model, snapshot, tmp_path / name)


@pytest.fixture(scope="module")
def whole(
    model: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    """A training that nothing happened to."""
    trained = Trained(model, snapshot, tmp_path_factory.mktemp("whole") / "adapter")
    trained.run()
    yield trained


@pytest.mark.slow
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    training: Callable[[str], Trained], whole: Trained
):
    pieces = training("pieces")
    first = pieces.run(stop=StopCondition(at_step=3))
    assert (first.step, first.steps, first.finished) == (3, STEPS, False)
    assert not (pieces.folder / WEIGHTS).exists()
    assert len(first.nats) == 5
    assert pieces.validated[3] > 0
    second = pieces.run(stop=StopCondition(at_step=7))
    assert second.tokens < first.tokens * 2, "no step is done twice"
    last = pieces.run(stop=StopCondition())
    assert (last.step, last.finished) == (STEPS, True)
    assert pieces.losses == whole.losses, "the schedule is that of the whole"
    assert pieces.weights == whole.weights, "not one bit may differ"
    assert sorted(path.name for path in pieces.folder.iterdir()) == ["adapter_config.json", WEIGHTS]


def test_a_training_already_at_its_stop_is_measured_again_without_a_step(
    training: Callable[[str], Trained],
):
    stopped = training("stopped")
    first = stopped.run(stop=StopCondition(at_step=3))
    losses = dict(stopped.losses)
    again = stopped.run(stop=StopCondition(at_step=3))
    assert (again.step, again.steps, again.tokens) == (3, STEPS, 0)
    assert again.nats == pytest.approx(first.nats, rel=1e-5)
    assert stopped.losses == losses


def test_a_deadline_ends_a_training_after_the_current_step(training: Callable[[str], Trained]):
    late = training("late")
    came = late.run(stop=StopCondition(deadline=0.0))
    assert (came.step, came.finished) == (1, True)
    assert "Only 4 of the 16 examples that fit were learned" in str(came.rows["said"])
    assert (late.folder / WEIGHTS).exists()


def test_a_deadline_before_a_stop_leaves_a_checkpoint(training: Callable[[str], Trained]):
    late = training("late")
    came = late.run(stop=StopCondition(at_step=7, deadline=0.0))
    assert (came.step, came.finished) == (1, False)
    assert late.run(stop=StopCondition(at_step=3)).step == 3


def test_the_compared_loss_is_the_reported_one(training: Callable[[str], Trained]):
    compared = training("compared")
    came = compared.run(stop=StopCondition())
    answer = len("Yes.") + 1  # a token a byte, and the end of the turn
    assert compared.validated[STEPS] == pytest.approx(sum(came.nats.values()) / 5 / answer)


@pytest.mark.slow
def test_intermediate_measurements_do_not_change_the_training(
    training: Callable[[str], Trained], whole: Trained
):
    measured = training("measured")
    measured.run(RECIPE.model_copy(update={"eval_steps": 2}))
    assert sorted(measured.validated) == [2, 4, 6, 8, 10, 12]
    assert measured.losses == whole.losses
    assert measured.weights == whole.weights
    assert measured.validated[12] == pytest.approx(whole.validated[12], rel=1e-5)


WORSENING = {"learning_rate": 0.3, "lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.5}
"""The loss falls while the rate is small, and then rises."""
PATIENT = RECIPE.model_copy(
    update={**WORSENING, "eval_steps": 1, "early_stopping_patience": 2, "num_train_epochs": 6}
)


@pytest.fixture(scope="module")
def undisturbed(model: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training that stopped early, and that nothing else happened to."""
    trained = Trained(model, snapshot, tmp_path_factory.mktemp("undisturbed") / "adapter")
    trained.run(PATIENT)
    return trained


def test_a_training_without_improvement_keeps_its_best_weights(
    training: Callable[[str], Trained],
):
    patient = training("patient")
    came = patient.run(PATIENT)
    best = min(patient.validated, key=lambda step: patient.validated[step])
    assert came.step < came.steps == 24
    assert came.step == best + 2
    assert came.finished
    assert came.rows["seen"] == min(4 * best, len(ASKED)), "what its later steps saw is not in it"

    at_its_best = training("at its best")
    at_its_best.run(PATIENT, StopCondition(at_step=best))
    (kept,) = (at_its_best.folder / "checkpoints").glob(f"checkpoint-{best}/{WEIGHTS}")
    assert patient.weights == kept.read_bytes()


@pytest.mark.parametrize("kill_at", [pytest.param(2, marks=pytest.mark.slow), 6])
def test_patience_survives_kills(
    training: Callable[[str], Trained], undisturbed: Trained, kill_at: int
):
    killed = training("killed")
    killed.kill_at = kill_at
    with pytest.raises(TrainingInterrupted):
        killed.run(PATIENT)
    killed.run(PATIENT)
    assert killed.weights == undisturbed.weights


@pytest.mark.slow
def test_a_training_killed_while_its_adapter_is_measured_ends_as_an_undisturbed_one(
    training: Callable[[str], Trained], undisturbed: Trained
):
    killed = training("killed")
    killed.fails_in = "validate"
    with pytest.raises(OSError, match="killed"):
        killed.run(PATIENT)
    killed.run(PATIENT)
    assert killed.weights == undisturbed.weights
    assert killed.validated == pytest.approx(undisturbed.validated, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("known", ["nothing", "an earlier measurement"])
def test_patience_survives_a_move_to_a_machine_that_gets_the_checkpoint_alone(
    training: Callable[[str], Trained], undisturbed: Trained, known: str
):
    killed, moved = training("killed"), training("moved")
    best = min(undisturbed.validated, key=lambda step: undisturbed.validated[step])
    killed.kill_at = best + 1
    with pytest.raises(TrainingInterrupted):
        killed.run(PATIENT)
    (last,) = (killed.folder / "checkpoints").glob(f"checkpoint-{best + 1}")
    shutil.copytree(last, moved.folder / "checkpoints" / last.name)
    if known != "nothing":
        earlier = {1: {"validation_loss": undisturbed.validated[1]}}
        (moved.folder / "checkpoints" / callbacks.MEASURED).write_text(json.dumps(earlier))
    moved.run(PATIENT)
    assert moved.weights == undisturbed.weights


@pytest.mark.parametrize(
    ("steps", "newest"),
    [
        pytest.param((2, 4, 6), 6, id="all"),
        pytest.param((4, 6, 7), 7, id="the-averaged-ones-and-that-of-a-cancellation"),
        pytest.param((2, 4, 8), 4, id="one-was-damaged-on-its-way"),
        pytest.param((6,), None, id="only-the-last-was-pushed"),
        pytest.param((2,), 2, id="the-first"),
        pytest.param((2, -4, 6), 2, id="one-was-half-deleted"),
    ],
)
def test_a_training_resumes_only_from_where_all_that_it_averages_is_there(
    tmp_path: Path, steps: tuple[int, ...], newest: int | None
):
    for step in steps:
        checkpoint = tmp_path / f"checkpoint-{abs(step)}"
        checkpoint.mkdir()
        if step > 0:
            checkpoints.seal_checkpoint(checkpoint)
    averaging = RECIPE.model_copy(update={"average_checkpoints": 3})
    found = checkpoints.newest_checkpoint(tmp_path, averaging)
    assert found == (tmp_path / f"checkpoint-{newest}" if newest else None)


def test_eval_steps_require_validation_rows(model: Path, tmp_path: Path):
    bare = training_rows.snapshot(tmp_path, [("Number 1?", "Yes.")])
    for recipe, stop in (
        (RECIPE.model_copy(update={"eval_steps": 2}), None),
        (RECIPE, StopCondition()),
    ):
        with pytest.raises(ValueError, match="raise validation_share"):
            Trained(model, bare, tmp_path / "a").run(recipe, stop)


@given(st.dictionaries(st.integers(1, 99), st.floats(0, 9), min_size=1), st.integers(1, 5))
def test_patience_is_the_number_of_measurements_without_improvement(
    history: dict[int, float], patience: int
):
    best = callbacks.best_step(history)
    assert history[best] == min(history.values())
    later = [step for step in history if step > best]
    assert callbacks.is_patience_over(history, patience) == (len(later) >= patience)


@pytest.mark.parametrize(
    ("losses", "best", "last"),
    [
        pytest.param((0.5, 0.5, 0.5, 0.4), 1, 3, id="never-better"),
        pytest.param((0.5, 0.4, 0.4, 0.4), 2, 4, id="equal-to-the-best"),
        pytest.param((0.5, 0.6, 0.5, 0.4), 1, 3, id="as-good-again"),
        pytest.param((0.5, 0.6, 0.4, 0.4, 0.4), 3, 5, id="better-in-time"),
    ],
)
def test_the_first_of_equal_losses_is_best_and_a_tie_is_no_improvement(
    tmp_path: Path, losses: tuple[float, ...], best: int, last: int
):
    measured = iter(losses)
    early_stopping = callbacks.EarlyStopping(
        PATIENT,
        StopCondition(),
        tmp_path,
        measure=lambda: {"validation_loss": next(measured)},
        save_weights=Path.mkdir,
        report=lambda _: None,
    )
    stopped = next(step for step in range(1, 9) if early_stopping.is_due(step, 24))
    assert (stopped, early_stopping.best_weights) == (last, tmp_path / f"best-{best}")
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{best}"]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        pytest.param({"early_stopping_patience": 2}, "requires eval_steps", id="never measured"),
        pytest.param(
            {"early_stopping_patience": 2, "eval_steps": 5, "average_checkpoints": 3},
            "leave one of them out",
            id="best or mean",
        ),
        pytest.param(
            {"early_stopping_patience": 2, "eval_steps": 5, "method": "adalora"},
            "leave out early_stopping_patience",
            id="ranks at the end",
        ),
    ],
)
def test_an_invalid_patience_is_refused(knobs: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(knobs)


def test_what_a_run_reached_is_read_as_it_was_written(tmp_path: Path):
    reached = TrainingProgress(
        step=16,
        steps=64,
        tokens=2048,
        stepping=1.5,
        parameters=96,
        finished=False,
        validation_loss=0.25,
        nats={3: 0.5, 11: 2.0},
        rows={"kept": 26, "left_out": {"too_long": ["row-1"]}},
    )
    reached.write(tmp_path / "reached")
    assert TrainingProgress.read(tmp_path / "reached") == reached
