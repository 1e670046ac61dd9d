"""Stop a training before its end: where it is told to, or when rows it never saw gain no more."""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from components import manifest
from components.schema import Progress
from components.train.recipe import Recipe
from components.train.stops import Stop

LOSS = "validation_loss"

History = Mapping[int, float]
"""The validation loss by the step after which it was measured."""


def best(history: History) -> int:
    """Name the step with the lowest loss; of equal ones the first."""
    return min(history, key=lambda step: (history[step], step))


def is_over(history: History, patience: int) -> bool:
    """Tell whether the last ``patience`` measurements brought no better loss than one before."""
    return bool(history) and sum(step > best(history) for step in history) >= patience


class Halting:
    """Measures the loss every ``eval_steps``, keeps the best weights, and knows when to stop.

    What it measured is beside the checkpoints, so a run that goes on from one decides as an
    undisturbed one does: what was measured after the checkpoint is known already, and the weights
    kept are those that it was measured of. They are kept only where there is a patience.
    """

    def __init__(
        self,
        recipe: Recipe,
        stop: Stop,
        folder: Path,
        *,
        measure: Callable[[], dict[str, float]],
        keep: Callable[[Path], None],
        report: Callable[[Progress], None],
        writes: bool = True,
    ) -> None:
        """Go on from what is in ``folder``.

        Args:
            recipe: Says how often to measure, and how patient to be.
            stop: Where to stop anyway.
            folder: That of the checkpoints.
            measure: Measures the model as it is; it must be able to train on afterwards.
            keep: Saves the model's weights to a folder.
            report: Called with what was measured.
            writes: Of several processes that train together one writes and reports.
        """
        self._recipe, self._stop, self._folder = recipe, stop, folder
        self._measure, self._keep, self._report = measure, keep, report
        self._writes = writes
        self._file = folder / "validation.json"
        self._found = self._read()

    def is_due(self, step: int, steps: int) -> bool:
        """Measure the loss where it is time to, and tell whether to stop after this step.

        Raises:
            FloatingPointError: The loss is no number.
        """
        every, patience = self._recipe.eval_steps, self._recipe.early_stopping_patience
        is_last = step == steps and patience is not None
        if every is not None and (step % every == 0 or is_last):
            if step not in self._found:
                self._found[step] = self._measure()
                _require_number(self._found[step][LOSS], step)
                if self._writes:
                    self._remember(step)
            if self._writes:
                self._report(Progress("train", step, steps, "steps", self._found[step]))
        return self.is_over(step) or self._stop.is_due(step, time.monotonic())

    def is_over(self, step: int) -> bool:
        """Tell whether the loss had gained nothing for too long by a step."""
        patience = self._recipe.early_stopping_patience
        until = {at: loss for at, loss in self._history.items() if at <= step}
        return patience is not None and is_over(until, patience)

    def has_stopped(self, step: int) -> bool:
        """Tell whether a run that goes on from a step has nothing to do."""
        at_step = self._stop.at_step
        return self.is_over(step) or (at_step is not None and step >= at_step)

    def is_end(self, step: int, steps: int) -> bool:
        """Tell whether a training that stopped after a step has come to its end with it."""
        return step == steps or self._stop.at_step is None or self.is_over(step)

    @property
    def best_weights(self) -> Path | None:
        """The folder of the weights with the lowest loss; ``None`` where the last are meant."""
        if self._recipe.early_stopping_patience is None or not self._found:
            return None
        return self._weights(best(self._history))

    @property
    def _history(self) -> History:
        return {step: figures[LOSS] for step, figures in self._found.items()}

    def _weights(self, step: int) -> Path:
        return self._folder / f"best-{step}"

    def _read(self) -> dict[int, dict[str, float]]:
        try:
            found: dict[str, dict[str, float]] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return {int(step): figures for step, figures in found.items()}

    def _remember(self, step: int) -> None:
        """Keep the weights first, then what they measured, and drop those that were best before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._recipe.early_stopping_patience is not None and best(self._history) == step:
            self._keep(self._weights(step))
            for old in self._folder.glob("best-*"):
                if old != self._weights(step):
                    shutil.rmtree(old)
        manifest.write_atomically(self._file, json.dumps(self._found))


def _require_number(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the validation loss after step {step} is {loss}: the training diverged, a lower "
            "learning_rate would help"
        )
