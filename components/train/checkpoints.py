"""Where a training begins, stops and resumes: warm starts, stop conditions and checkpoints."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.schema import Json
from components.store import manifest
from components.store.manifest import AdapterManifest
from components.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class StopCondition:
    """When to interrupt a training, whichever comes first; it saves a checkpoint to resume from.

    The learning rate's schedule stays that of the whole training.
    """

    at_step: int | None = None

    deadline: float | None = None
    """``time.monotonic`` seconds, which all processes of a machine share. Without ``at_step`` the
    training is then finished, as if that had been its last step."""

    keep: str | None = None
    """A folder for the adapter's current weights if the training is interrupted, to measure them.
    """

    def is_due(self, step: int, now: float) -> bool:
        """Return whether to stop after a step."""
        at_step = self.at_step is not None and step >= self.at_step
        return at_step or (self.deadline is not None and now >= self.deadline)


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """What a run of a training did, up to ``step`` of ``steps``."""

    step: int
    steps: int
    tokens: int
    """Tokens seen in this run, prompts and answers."""

    stepping: float
    """Seconds that this run spent in steps."""

    parameters: int
    """Trained parameters."""

    finished: bool
    """Whether the adapter is written; otherwise there is a checkpoint."""

    validation_loss: float | None = None
    nats: Mapping[int, float] = field(default_factory=dict[int, float])
    """Negative log-likelihood of the whole answer by validation row number, only of a training that
    is to be compared."""

    rows: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """Counts of the snapshot's rows (``training_examples.Selection.record``)."""

    def write(self, path: Path) -> None:
        """Replace a file with this record."""
        manifest.write_atomically(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "TrainingProgress":
        """Return what ``write`` wrote."""
        content: dict[str, Any] = json.loads(path.read_text())
        nats = {int(row): float(value) for row, value in content.pop("nats").items()}
        return cls(**content, nats=nats)


ADAPTER_SHAPE = (
    "method",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "target_modules",
    "layers_to_transform",
)
"""Settings that must be equal for a warm start: they define what the weights mean."""


def warm_start_problem(recipe: Recipe, base: str, earlier: AdapterManifest) -> str | None:
    """Return why a training can't start from an adapter's weights; ``None`` if it can.

    Args:
        recipe: The new adapter's.
        base: The content hash of the new adapter's base.
        earlier: The manifest of the adapter to start from.
    """
    if earlier.base != base:
        return f"it is of another base ({earlier.base}, now {base})"
    try:
        before = Recipe.model_validate(earlier.recipe)
    except ValidationError:
        return "its recipe has settings that no longer exist"
    if before.method == "adalora" or str(before.init_lora_weights).startswith(("pissa", "eva")):
        return "its ranks are not those of its recipe: its method reallocates or doubles them"
    if before.init_lora_weights == "loftq":  # its successors' recipes would not show it
        return (
            f"it compensates the quantization error of {before.precision}, and so would all after"
        )
    for name in ADAPTER_SHAPE:
        earlier_value, value = getattr(before, name), getattr(recipe, name)
        if earlier_value != value:
            return f"its {name} is {earlier_value}, the recipe's {value}"
    return None


CHECKPOINTS = "checkpoints"  # the folder in an adapter's while it is trained

SEAL_FILE = "sealed.json"

logger = logging.getLogger(__name__)


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the digests of a finished checkpoint's files, by which a torn one is recognized."""
    manifest.write_atomically(checkpoint / SEAL_FILE, json.dumps(_file_digests(checkpoint)))


def newest_checkpoint(checkpoints: Path, recipe: Recipe) -> Path | None:
    """Return the last checkpoint from which a run ends as an uninterrupted one; log why others not.

    Its files match its seal, as do those of the ones before it that are averaged at its end.
    """
    saved = {_step_of(checkpoint): checkpoint for checkpoint in _saved_checkpoints(checkpoints)}
    for step, checkpoint in reversed(saved.items()):
        averaged = range(recipe.save_steps, step, recipe.save_steps)
        earlier = averaged[len(averaged) - min(len(averaged), recipe.average_checkpoints - 1) :]
        if not all(other in saved and _matches_seal(saved[other]) for other in earlier):
            reason = "lacks one before it that is to be averaged"
        elif not _matches_seal(checkpoint):
            reason = "is incomplete or damaged"
        else:
            return checkpoint
        logger.warning("%s %s, so it is not resumed from", checkpoint, reason)
    return None


def sealed_checkpoints(adapter: Path) -> list[Path]:
    """Return the sealed checkpoints in an adapter's folder, the oldest first."""
    saved = _saved_checkpoints(adapter / CHECKPOINTS)
    return [checkpoint for checkpoint in saved if (checkpoint / SEAL_FILE).exists()]


def step_of(name: str) -> int:
    """Return the step of a checkpoint by its folder's name."""
    return int(name.removeprefix("checkpoint-"))


def _saved_checkpoints(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("checkpoint-*"), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return step_of(checkpoint.name)


def checkpoint_progress(checkpoint: Path) -> tuple[int, int]:
    """Return a checkpoint's step and the training's total steps."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state["global_step"], state["max_steps"]


def drop_irregular(checkpoints: Path, save_steps: int, *, keep: Path | None) -> None:
    """Delete checkpoints of earlier cancellations between regular steps, and all after ``keep``.

    The training resumes from ``keep``; later ones are incomplete.
    """
    for checkpoint in _saved_checkpoints(checkpoints):
        is_later = keep is None or _step_of(checkpoint) > _step_of(keep)
        if is_later or (_step_of(checkpoint) % save_steps and checkpoint != keep):
            shutil.rmtree(checkpoint)


def regular_checkpoints(checkpoints: Path, recipe: Recipe, *, before: int) -> list[Path]:
    """Return the checkpoints to average; cancelled and resumed runs have the same ones."""
    regular = [
        checkpoint
        for checkpoint in _saved_checkpoints(checkpoints)
        if not _step_of(checkpoint) % recipe.save_steps and _step_of(checkpoint) < before
    ]
    if len(regular) < recipe.average_checkpoints - 1:
        logger.warning(
            "the adapter is the mean of %d weights, since a run of %d steps has %d checkpoints "
            "before its end; for average_checkpoints: %d lower save_steps, which is %d",
            len(regular) + 1,
            before,
            len(regular),
            recipe.average_checkpoints,
            recipe.save_steps,
        )
    return regular[len(regular) - min(len(regular), recipe.average_checkpoints - 1) :]


def _matches_seal(checkpoint: Path) -> bool:
    try:
        sealed: object = json.loads((checkpoint / SEAL_FILE).read_text())
        return sealed == _file_digests(checkpoint)
    except (OSError, json.JSONDecodeError):
        return False


def _file_digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.iterdir() if path.name != SEAL_FILE)
    return {path.name: manifest.file_digest(path) for path in files}
