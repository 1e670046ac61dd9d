"""Trainer callbacks: progress, SIGTERM, divergence, loss on held-out rows and early stopping."""

import json
import math
import resource
import shutil
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch  # noqa: TID253 - this module is itself imported late
from transformers import TrainerCallback  # noqa: TID253 - as above

from components.schema import Progress
from components.store import manifest
from components.train import (
    checkpoints,
    micro_batches,
    process_group,
    sft_trainer,
    training_examples,
)
from components.train.checkpoints import StopCondition
from components.train.objective_losses import ModelOutputs
from components.train.recipe import Recipe, Sft
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import (
        PreTrainedTokenizerBase,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )


LOSS_METRIC = "validation_loss"

LossHistory = Mapping[int, float]
"""The validation loss by the step after which it was measured."""


def best_step(history: LossHistory) -> int:
    """Name the step with the lowest loss; of equal ones the first."""
    return min(history, key=lambda step: (history[step], step))


def is_patience_over(history: LossHistory, patience: int) -> bool:
    """Tell whether the last ``patience`` measurements brought no better loss than one before."""
    return bool(history) and sum(step > best_step(history) for step in history) >= patience


class EarlyStopping:
    """Measures the loss every ``eval_steps``, keeps the best weights, and knows when to stop.

    What it measured is beside the checkpoints, so a run that goes on from one decides as an
    undisturbed one does: what was measured after the checkpoint is known already, and the weights
    kept are those that it was measured of. They are kept only where there is a patience.
    """

    def __init__(
        self,
        recipe: Recipe,
        stop: StopCondition,
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
                _require_number(self._found[step][LOSS_METRIC], step)
                if self._writes:
                    self._remember(step)
            if self._writes:
                self._report(Progress("train", step, steps, "steps", self._found[step]))
        return self.is_over(step) or self._stop.is_due(step, time.monotonic())

    def is_over(self, step: int) -> bool:
        """Tell whether the loss had gained nothing for too long by a step."""
        patience = self._recipe.early_stopping_patience
        until = {at: loss for at, loss in self._history.items() if at <= step}
        return patience is not None and is_patience_over(until, patience)

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
        return self._weights(best_step(self._history))

    @property
    def _history(self) -> LossHistory:
        return {step: figures[LOSS_METRIC] for step, figures in self._found.items()}

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
        if self._recipe.early_stopping_patience is not None and best_step(self._history) == step:
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


def answer_nats(
    model: torch.nn.Module, lessons: Sequence[TrainingExample], batch_size: int
) -> dict[str, float]:
    """Give the negative log-likelihood of each lesson's answer, whole and in nats, by row id.

    It is the same whatever the objective, and in whatever tokens a base writes the answer, so
    it compares trainings of different kinds. The model is in evaluation mode from then on.

    Args:
        model: The base with its adapter.
        lessons: One answer each.
        batch_size: Lessons that are computed at a time.

    Raises:
        FloatingPointError: One is no number.
    """
    device = next(model.eval().parameters()).device
    ordered = sorted(lessons, key=lambda one: one.rows[0].input_ids)  # alike together
    found: dict[str, float] = {}
    for start in range(0, len(ordered), batch_size):
        some = ordered[start : start + batch_size]
        for share in micro_batches.collate([asdict(one) for one in some])["shares"]:
            placed = {name: tensor.to(device) for name, tensor in share.items()}
            with torch.no_grad():
                said = ModelOutputs(sft_trainer.answer_logits(model, placed), placed).rows.tolist()
            for number, likelihood in zip(share["lesson"].tolist(), said, strict=True):
                found[some[number].row_id] = -likelihood
    if not all(map(math.isfinite, found.values())):
        raise FloatingPointError(
            "the loss on the validation rows is no number: the training diverged, a lower "
            "learning_rate would help"
        )
    return found


def mean_nats(found: dict[str, float], lessons: Sequence[TrainingExample]) -> float:
    """Give the mean over the answers' tokens, all tokens alike."""
    return math.fsum(found.values()) / sum(lesson.rows[0].answer_length for lesson in lessons)


def read_held_out(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, *, is_compared: bool
) -> list[TrainingExample]:
    """Read what the loss is measured on; trainings are compared on answers, whatever they learn.

    Raises:
        ValueError: There is nothing, and it is wanted.
    """
    if is_compared:
        recipe = recipe.model_copy(update={"objective": Sft()})
    held = training_examples.read_validation(snapshot, tokenizer, recipe)
    if not held and (is_compared or recipe.eval_steps is not None):
        raise ValueError(
            f"training on {snapshot}: eval_steps and a search want rows to measure the loss on, "
            "and it has none that fit into max_length; raise validation_share"
        )
    return held


def measure_loss(
    trainer: CompletionTrainer, held: list[TrainingExample], recipe: Recipe
) -> dict[str, float]:
    """Measure on what it never saw, and let it train on."""
    figures = trainer.measure(held, recipe.per_device_train_batch_size)
    cast("PeftModel", trainer.model).train()
    return figures


def validate_adapter(
    trainer: CompletionTrainer,
    held: list[TrainingExample],
    snapshot: Path,
    recipe: Recipe,
    *,
    is_compared: bool,
) -> tuple[dict[str, float], dict[int, float]]:
    """Give figures of the adapter on what it never saw, and each row's loss if it is compared."""
    if not held:
        return {}, {}
    size = recipe.per_device_train_batch_size
    if not is_compared:
        return trainer.measure(held, size), {}
    with trainer.accelerator.autocast():  # as in a step, also where there was no step to do
        nats = answer_nats(cast("PeftModel", trainer.model), held, size)
    numbers = training_examples.validation_numbers(snapshot)
    by_number = {numbers[row_id]: loss for row_id, loss in nats.items()}
    return {LOSS_METRIC: mean_nats(nats, held)}, by_number


class TrainingInterrupted(SystemExit):
    """SIGTERM arrived: a checkpoint was saved, and the next run goes on from there."""


FIRST_STEPS = 10
"""Steps whose highest loss says what a loss may be."""

EXPLODED_RATIO = 5.0
"""How many times as high a loss may be."""

SURPRISED_NATS = 2.0
"""How many times as high as guessing's it may be in any case: what goes on from a trained adapter
starts low, knows most rows, and is the more surprised by a strange one."""


class TrainingWatch(TrainerCallback):
    """Reports each step, seals checkpoints, and ends the run with one once SIGTERM has arrived.

    ``guessing`` is the loss of a model that finds all tokens equally likely, in nats. ``is_due`` is
    asked after each step, given it and the last one, whether to end the run there.
    """

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.count_tokens: Callable[[], int] = lambda: 0
        self.row_ids: Callable[[], Sequence[str]] = tuple
        self.is_due: Callable[[int, int], bool] = lambda _step, _steps: False
        self.guessing = 0.0
        self.interrupted = False
        self.started = time.monotonic()
        self.first_step = 0
        self.seconds = 0.0

    @contextmanager
    def for_sigterm(self) -> Generator[None]:
        """Take SIGTERM as a request to save and stop, while training."""

        def interrupt(*_: object) -> None:
            self.interrupted = True

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_train_begin(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **_: object,
    ) -> None:
        """Note where this run goes on, for its pace."""
        self.first_step = state.global_step

    def on_step_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **_: object,
    ) -> None:
        """Ask the trainer to save and stop, in all processes at the same step."""
        is_due = self.is_due(state.global_step, state.max_steps)
        self.interrupted = process_group.any_process(self.interrupted, args.device)
        if process_group.any_process(is_due, args.device) or self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Report a step's figures; the summary at the end of a run has no loss of a step."""
        if logs is None or "loss" not in logs:
            return
        self._refuse(logs["loss"], state)
        self.seconds = seconds = time.monotonic() - self.started
        pace = seconds / (state.global_step - self.first_step)
        figures = {
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "tokens_per_second": self.count_tokens() / seconds,
            "peak_memory_gb": peak_memory_gb(),
            "seconds_left": (state.max_steps - state.global_step) * pace,
        }
        if process_group.process_number() == 0:
            self.report(Progress("train", state.global_step, state.max_steps, "steps", figures))

    def on_save(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **_: object,
    ) -> None:
        """Seal the checkpoint that was just written, once every process has written its part."""
        assert args.output_dir is not None
        process_group.barrier()
        if process_group.process_number() == 0:
            checkpoints.seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _refuse(self, loss: float, state: "TrainerState") -> None:
        """Stop at a loss that is no number, or that is far above those at the start.

        Those are the training's, which a checkpoint brings along, not this run's.
        """
        *before, _ = (entry["loss"] for entry in state.log_history if "loss" in entry)
        most = max(before[:FIRST_STEPS], default=math.inf)
        if math.isfinite(loss) and loss <= max(
            EXPLODED_RATIO * most, SURPRISED_NATS * self.guessing
        ):
            return
        rows = ", ".join(self.row_ids())
        raise FloatingPointError(
            f"the loss of step {state.global_step} is {loss:.4g}, that of the first steps was at "
            f"most {most:.4g}: the training diverged, a lower learning_rate would help, if not for "
            f"what is in these rows: {rows}"
        )


def peak_memory_gb() -> float:
    """Give the most memory taken so far, in 10^9 bytes: of the CUDA device, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
