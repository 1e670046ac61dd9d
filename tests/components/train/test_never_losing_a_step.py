"""Too little memory, a damaged checkpoint or an exploding loss cost no more than necessary."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.models import base
from components.schema import Progress
from components.train import fit
from components.train.callbacks import TrainingInterrupted
from components.train.recipe import Recipe
from tests.components.train.test_fit import cancel_at, losses_into
from tests.support import training_rows

RECIPE = Recipe(
    r=4, learning_rate=1e-2, num_train_epochs=2, per_device_train_batch_size=4, save_steps=2
)
ASKED = [f"Number {number * 'x'}?" for number in range(12)]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in ASKED])


def too_small(loaded: torch.nn.Module, most: int, lengths: list[int]) -> None:
    """Make the model run out of memory on longer sequences, as on a small GPU."""

    def check(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        lengths.append(kwargs["input_ids"].shape[1])
        if lengths[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    loaded.register_forward_pre_hook(check, with_kwargs=True)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_split_with_the_same_result(
    model: Path, snapshot: Path, tmp_path: Path, threads: Callable[[int], None]
):
    threads(1)  # which hold the batch at once, not a share each
    roomy: dict[int, float] = {}
    fit.fit(snapshot, model, tmp_path / "roomy", RECIPE, report=losses_into(roomy))
    loaded, tokenizer = base.load(model, "nf4", for_training=True)
    lengths: list[int] = []
    too_small(loaded, 75, lengths)
    tight: dict[int, float] = {}
    fit.fit(snapshot, (loaded, tokenizer), tmp_path / "b", RECIPE, report=losses_into(tight))
    assert max(lengths) > 75 >= max(lengths[len(lengths) // 2 :])
    assert tight == pytest.approx(roomy, rel=0.02)


def test_rows_that_fit_only_one_by_one_are_learned_one_by_one(
    model: Path, tmp_path: Path, threads: Callable[[int], None]
):
    threads(1)
    asked = ["a" * 240, "b" * 190, "c" * 190, "d" * 140, "e" * 140]
    snapshot = training_rows.snapshot(tmp_path, [(text, "Yes.") for text in asked])
    loaded, tokenizer = base.load(model, "nf4", for_training=True)
    lengths: list[int] = []
    too_small(loaded, 300, lengths)  # which the longest nearly needs, and the shortest two exceed
    recipe = RECIPE.model_copy(update={"per_device_train_batch_size": 5, "num_train_epochs": 1})
    losses: dict[int, float] = {}
    fit.fit(snapshot, (loaded, tokenizer), tmp_path / "a", recipe, report=losses_into(losses))
    assert [*losses] == [1]
    assert max(lengths[-5:]) > 250


def test_a_single_row_that_does_not_fit_is_an_error_with_a_remedy(
    model: Path, snapshot: Path, tmp_path: Path
):
    loaded, tokenizer = base.load(model, "nf4", for_training=True)
    too_small(loaded, 30, [])
    with pytest.raises(MemoryError, match="lower max_length or name fewer target_modules"):
        fit.fit(snapshot, (loaded, tokenizer), tmp_path / "a", RECIPE, report=lambda _: None)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(b"", id="truncated", marks=pytest.mark.slow),
        pytest.param(b"not what it was", id="other-bytes"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    model: Path, snapshot: Path, tmp_path: Path, spoil: bytes
):
    fit.fit(snapshot, model, tmp_path / "whole", RECIPE, report=lambda _: None)
    losses: dict[int, float] = {}
    with pytest.raises(TrainingInterrupted):
        fit.fit(snapshot, model, tmp_path / "a", RECIPE, report=cancel_at(4, losses))
    saved = sorted(path.name for path in (tmp_path / "a/checkpoints").glob("checkpoint-*"))
    assert saved == ["checkpoint-4", "checkpoint-5"]
    (tmp_path / "a/checkpoints/checkpoint-5/optimizer.pt").write_bytes(spoil)
    losses.clear()
    fit.fit(snapshot, model, tmp_path / "a", RECIPE, report=losses_into(losses))
    assert min(losses) == 5, "from the checkpoint of step 4"
    whole = (tmp_path / "whole/adapter_model.safetensors").read_bytes()
    assert (tmp_path / "a/adapter_model.safetensors").read_bytes() == whole


def stop_of(spoil: Callable[[torch.nn.Module, int], None], tmp_path: Path, model: Path) -> str:
    """Train a model that is damaged at each step; return the error's message."""
    snapshot = training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in ASKED])
    loaded, tokenizer = base.load(model, "nf4", for_training=True)

    def report(progress: Progress) -> None:
        spoil(loaded, progress.done)

    with pytest.raises(FloatingPointError) as stopped:
        fit.fit(snapshot, (loaded, tokenizer), tmp_path / "a", RECIPE, report=report)
    return str(stopped.value)


def test_a_nan_loss_stops_with_the_rows_of_its_batch(model: Path, tmp_path: Path):
    def spoil(loaded: torch.nn.Module, step: int) -> None:
        if step == 3:
            torch.nn.init.constant_(loaded.get_parameter("model.norm.weight"), float("nan"))

    message = stop_of(spoil, tmp_path, model)
    assert message.startswith("the loss of step 4 is nan, that of the first steps was at most ")
    assert message.count("train ") == RECIPE.per_device_train_batch_size


def test_a_nan_loss_before_any_step_is_no_divergence(model: Path, snapshot: Path, tmp_path: Path):
    recipe = RECIPE.model_copy(update={"first_token_weight": 1e38})
    with pytest.raises(FloatingPointError) as stopped:
        fit.fit(snapshot, model, tmp_path / "a", recipe, report=lambda _: None)
    message = str(stopped.value)
    assert message.startswith("the loss of step 1 is nan before anything was learned")
    assert "diverged" not in message
    assert message.count("train ") == recipe.per_device_train_batch_size


def test_an_exploding_loss_stops_the_training(model: Path, tmp_path: Path):
    def spoil(loaded: torch.nn.Module, step: int) -> None:
        if step == 3:
            torch.nn.init.constant_(loaded.get_parameter("model.norm.weight"), -500.0)

    message = stop_of(spoil, tmp_path, model)
    assert "the training diverged; lower the learning_rate" in message


@pytest.mark.slow
def test_one_unusual_batch_among_well_known_ones_is_not_divergence(model: Path, tmp_path: Path):
    known = training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in ASKED])
    knobs = {"num_train_epochs": 20, "r": 16}
    fit.fit(known, model, tmp_path / "a", RECIPE.model_copy(update=knobs), report=lambda _: None)
    strange = [*((asked, "Yes.") for asked in ASKED * 3), (ASKED[0], "Never ask me that again!")]
    losses: dict[int, float] = {}
    fit.fit(
        training_rows.snapshot(tmp_path, strange),
        model,
        tmp_path / "b",
        RECIPE.model_copy(update=knobs | {"num_train_epochs": 1, "learning_rate": 1e-6}),
        warm_start=tmp_path / "a",
        report=losses_into(losses),
    )
    assert max(losses.values()) > 5 * min(losses.values())


def test_each_epoch_has_its_own_order(
    model: Path, snapshot: Path, tmp_path: Path, threads: Callable[[int], None]
):
    threads(1)
    loaded, tokenizer = base.load(model, "nf4", for_training=True)
    seen: list[int] = []

    def note(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].shape[1])  # no two rows are of one length

    loaded.register_forward_pre_hook(note, with_kwargs=True)
    one_by_one = RECIPE.model_copy(update={"per_device_train_batch_size": 1, "save_steps": 100})
    fit.fit(snapshot, (loaded, tokenizer), tmp_path / "a", one_by_one, report=lambda _: None)
    first, second = seen[: len(ASKED)], seen[len(ASKED) :]
    assert sorted(first) == sorted(second)
    assert first != second
