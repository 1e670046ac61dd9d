"""Checkpoints, stop conditions and warm starts: where a training begins, stops and resumes."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from components.schema import Json
from components.store import manifest
from components.store.manifest import AdapterManifest
from components.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class StopCondition:
    """A training stops at whichever comes first, saves a checkpoint, and goes on from it later.

    Its schedule stays that of its whole length, so in pieces it ends where it does in one go.
    ``deadline`` is on this machine's clock that is never set (``time.monotonic``), which all its
    processes share; where no step is given, it ends the training for good, as if that had been its
    last step. Stopped before its end, the adapter as it is goes to the folder
    ``keep``, if there is one, so that it can be measured.
    """

    at_step: int | None = None
    deadline: float | None = None
    keep: str | None = None

    def is_due(self, step: int, now: float) -> bool:
        """Tell whether to stop after a step."""
        at_step = self.at_step is not None and step >= self.at_step
        return at_step or (self.deadline is not None and now >= self.deadline)


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training came: to ``step`` of ``steps``.

    ``tokens`` counts what this run of it saw, in ``stepping`` seconds; ``parameters`` what it
    trains. ``nats`` are, by the number of a validation row, the negative log-likelihood of its
    whole answer, only of a training that is to be compared. ``rows`` says what became of the
    snapshot's rows (``examples.Selection``). ``finished`` tells that the adapter is written;
    otherwise there is a checkpoint.
    """

    step: int
    steps: int
    tokens: int
    stepping: float
    parameters: int
    finished: bool
    validation_loss: float | None = None
    nats: Mapping[int, float] = field(default_factory=dict[int, float])
    rows: Mapping[str, Json] = field(default_factory=dict[str, Json])


ADAPTER_SHAPE = (
    "method",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "target_modules",
    "layers_to_transform",
    "modules_to_save",
)
"""What must be equal for one adapter's weights to mean the same in another."""


def warm_start_problem(recipe: Recipe, base: str, earlier: AdapterManifest) -> str | None:
    """Say why an adapter can't be gone on from; ``None`` if it can.

    Args:
        recipe: How the new adapter is to be trained.
        base: The content hash of its base.
        earlier: The manifest of the adapter to go on from.
    """
    if earlier.base != base:
        return f"it is of another base ({earlier.base}, now {base})"
    try:
        before = Recipe.model_validate(earlier.recipe)
    except ValidationError:
        return "its recipe has settings that there are no more"
    if before.method == "adalora" or str(before.init_lora_weights).startswith(
        ("pissa", "olora", "eva")
    ):
        return "its ranks are not those of its recipe, for they were shared out or doubled"
    if before.init_lora_weights == "loftq" and before.precision != recipe.precision:
        return f"it makes up for what {before.precision} loses, found {recipe.precision} now"
    for name in ADAPTER_SHAPE:
        was, wanted = getattr(before, name), getattr(recipe, name)
        if was != wanted:
            return f"its {name} is {was}, the recipe's {wanted}"
    return None


SEAL_FILE = "sealed.json"

logger = logging.getLogger(__name__)


def seal_checkpoint(checkpoint: Path) -> None:
    """Say what the finished checkpoint holds, so that it is known to be whole later."""
    manifest.write_atomically(checkpoint / SEAL_FILE, json.dumps(_file_digests(checkpoint)))


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """Find the last checkpoint that is what it was when it was finished.

    One that a kill cut short or a disk spoiled is passed over for the one before, and said.
    """
    for one in reversed(_saved_checkpoints(checkpoints)):
        if _is_whole(one):
            return one
        logger.warning("%s is not whole, so the one before it is used", one)
    return None


def _saved_checkpoints(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("checkpoint-*"), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def checkpoint_progress(checkpoint: Path) -> tuple[int, int]:
    """Give the step after which a whole checkpoint was saved, and how many there are to be."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state["global_step"], state["max_steps"]


def drop_irregular(checkpoints: Path, save_steps: int, *, keep: Path | None) -> None:
    """Drop what earlier cancellations saved between two regular steps, and what comes after.

    Only ``keep``, from which the training goes on, is needed: what is later is not whole.
    """
    for one in _saved_checkpoints(checkpoints):
        is_later = keep is None or _step_of(one) > _step_of(keep)
        if is_later or (_step_of(one) % save_steps and one != keep):
            shutil.rmtree(one)


def regular_checkpoints(checkpoints: Path, recipe: Recipe, *, before: int) -> list[Path]:
    """List the checkpoints to average, which a cancellation and a resumed run don't change."""
    regular = [
        one
        for one in _saved_checkpoints(checkpoints)
        if not _step_of(one) % recipe.save_steps and _step_of(one) < before
    ]
    return regular[len(regular) - min(len(regular), recipe.average_checkpoints - 1) :]


def _is_whole(checkpoint: Path) -> bool:
    try:
        sealed: object = json.loads((checkpoint / SEAL_FILE).read_text())
        return sealed == _file_digests(checkpoint)
    except (OSError, json.JSONDecodeError):
        return False


def _file_digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.iterdir() if path.name != SEAL_FILE)
    return {path.name: manifest.file_digest(path) for path in files}
