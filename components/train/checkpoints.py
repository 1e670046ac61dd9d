"""What a training saves on its way: which checkpoints are whole, and which are kept."""

import json
import logging
import shutil
from pathlib import Path

from components import manifest
from components.train.recipe import Recipe

SEAL = "sealed.json"

logger = logging.getLogger(__name__)


def seal(checkpoint: Path) -> None:
    """Say what the finished checkpoint holds, so that it is known to be whole later."""
    manifest.write_atomically(checkpoint / SEAL, json.dumps(_digests(checkpoint)))


def newest(checkpoints: Path) -> Path | None:
    """Find the last checkpoint that is what it was when it was finished.

    One that a kill cut short or a disk spoiled is passed over for the one before, and said.
    """
    for one in reversed(_saved(checkpoints)):
        if _is_whole(one):
            return one
        logger.warning("%s is not whole, so the one before it is used", one)
    return None


def _saved(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("checkpoint-*"), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def progress(checkpoint: Path) -> tuple[int, int]:
    """Give the step after which a whole checkpoint was saved, and how many there are to be."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state["global_step"], state["max_steps"]


def drop_irregular(checkpoints: Path, save_steps: int, *, keep: Path | None) -> None:
    """Drop what earlier cancellations saved between two regular steps, and what comes after.

    Only ``keep``, from which the training goes on, is needed: what is later is not whole.
    """
    for one in _saved(checkpoints):
        is_later = keep is None or _step(one) > _step(keep)
        if is_later or (_step(one) % save_steps and one != keep):
            shutil.rmtree(one)


def regular(checkpoints: Path, recipe: Recipe, *, before: int) -> list[Path]:
    """List the checkpoints to average, which a cancellation and a resumed run don't change."""
    regular = [
        one
        for one in _saved(checkpoints)
        if not _step(one) % recipe.save_steps and _step(one) < before
    ]
    return regular[len(regular) - min(len(regular), recipe.average_checkpoints - 1) :]


def _is_whole(checkpoint: Path) -> bool:
    try:
        sealed: object = json.loads((checkpoint / SEAL).read_text())
        return sealed == _digests(checkpoint)
    except (OSError, json.JSONDecodeError):
        return False


def _digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.iterdir() if path.name != SEAL)
    return {path.name: manifest.file_digest(path) for path in files}
