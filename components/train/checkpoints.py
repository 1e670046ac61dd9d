"""What a training saves on its way: which checkpoints are whole, and which are kept."""

import json
import shutil
from pathlib import Path

from components.train.recipe import Recipe


def newest(checkpoints: Path) -> Path | None:
    """Find the last checkpoint that was written to its end: its state is written last."""
    return next((one for one in reversed(_saved(checkpoints)) if _is_complete(one)), None)


def _saved(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("checkpoint-*"), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def drop_irregular(checkpoints: Path, save_steps: int, *, keep: Path | None) -> None:
    """Drop what earlier cancellations saved between two regular steps: only the last is needed."""
    for one in _saved(checkpoints):
        if _step(one) % save_steps and one != keep:
            shutil.rmtree(one)


def regular(checkpoints: Path, recipe: Recipe, *, before: int) -> list[Path]:
    """List the checkpoints to average, which a cancellation and a resumed run don't change."""
    regular = [
        one
        for one in _saved(checkpoints)
        if not _step(one) % recipe.save_steps and _step(one) < before
    ]
    return regular[len(regular) - min(len(regular), recipe.average_checkpoints - 1) :]


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
