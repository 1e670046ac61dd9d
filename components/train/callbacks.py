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
from transformers import (  # noqa: TID253 - as above
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from components.schema import Progress
from components.store import manifest
from components.train import checkpoints, process_group, sft_trainer, training_examples
from components.train.checkpoints import StopCondition
from components.train.micro_batches import collate
from components.train.objective_losses import ModelOutputs
from components.train.recipe import Recipe, Sft
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


LOSS_METRIC = "validation_loss"

LossHistory = Mapping[int, float]  # validation loss by step

MEASURED = "validation.json"  # metrics by step, beside the checkpoints and in each of them

BEST, WEIGHTS = "best.safetensors", "adapter_model.safetensors"
"""The best weights so far, in a checkpoint and as PEFT names them."""


def best_step(history: LossHistory) -> int:
    """Return the first step with the lowest loss."""
    return min(history, key=lambda step: (history[step], step))


def is_patience_over(history: LossHistory, patience: int) -> bool:
    """Return whether ``patience`` measurements came after the best one."""
    return bool(history) and sum(step > best_step(history) for step in history) >= patience


class EarlyStopping:
    """Measures the validation loss every ``eval_steps`` and decides when to stop.

    Measurements are saved next to the checkpoints, so that a resumed run decides as an
    uninterrupted one, and in each checkpoint, for a run on a machine that has nothing else. Best
    weights are saved only with ``early_stopping_patience``.
    """

    def __init__(
        self,
        recipe: Recipe,
        stop: StopCondition,
        folder: Path,
        *,
        measure: Callable[[], dict[str, float]],
        save_weights: Callable[[Path], None],
        report: Callable[[Progress], None],
        writes: bool = True,
        checkpoint: Path | None = None,
    ) -> None:
        """Read earlier measurements from ``folder``, and from the checkpoint that is resumed.

        ``measure`` returns the current model's metrics and leaves it in training mode. ``writes``
        is true in one of the processes that train together.
        """
        self._recipe, self._stop, self._folder = recipe, stop, folder
        self._measure, self._save_weights, self._report = measure, save_weights, report
        self._writes = writes
        self._file = folder / MEASURED
        self._measurements = _read_measurements(self._file)
        if checkpoint is not None:
            self._measurements = _read_measurements(checkpoint / MEASURED) | self._measurements
            if writes:
                self._restore_best(checkpoint / BEST)

    def is_due(self, step: int, steps: int) -> bool:
        """Measure the loss if this step is due, and return whether to stop after it.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        every, patience = self._recipe.eval_steps, self._recipe.early_stopping_patience
        is_last = step == steps and patience is not None
        if every is not None and (step % every == 0 or is_last):
            if step not in self._measurements:
                self._measurements[step] = self._measure()
                _require_finite(f"the validation loss after step {step}", self._history[step])
                if self._writes:
                    self._save(step)
            if self._writes:
                self._report(Progress("train", step, steps, "steps", self._measurements[step]))
        return self.is_over(step) or self._stop.is_due(step, time.monotonic())

    def is_over(self, step: int) -> bool:
        """Return whether the patience was over by a step."""
        patience = self._recipe.early_stopping_patience
        until = {at: loss for at, loss in self._history.items() if at <= step}
        return patience is not None and is_patience_over(until, patience)

    def has_stopped(self, step: int) -> bool:
        """Return whether a run that resumes at a step has nothing to do."""
        at_step = self._stop.at_step
        return self.is_over(step) or (at_step is not None and step >= at_step)

    def is_end(self, step: int, steps: int) -> bool:
        """Return whether a training that stopped after a step is finished, not interrupted."""
        return step == steps or self._stop.at_step is None or self.is_over(step)

    def keep_in(self, checkpoint: Path) -> None:
        """Add to a checkpoint what a run that resumes from it has to know."""
        if self._measurements:
            manifest.write_atomically(checkpoint / MEASURED, json.dumps(self._measurements))
        if (best := self.best_weights) is not None:
            shutil.copyfile(best / WEIGHTS, checkpoint / BEST)

    @property
    def best_weights(self) -> Path | None:
        """The folder of the best weights; ``None`` if the last ones are to be used."""
        if self._recipe.early_stopping_patience is None or not self._measurements:
            return None
        return self._weights_folder(best_step(self._history))

    def learned_steps(self, step: int) -> int:
        """Return how many steps are in the adapter of a training that ended after ``step``."""
        return step if self.best_weights is None else best_step(self._history)

    @property
    def _history(self) -> LossHistory:
        return {step: figures[LOSS_METRIC] for step, figures in self._measurements.items()}

    def _weights_folder(self, step: int) -> Path:
        return self._folder / f"best-{step}"

    def _restore_best(self, kept: Path) -> None:
        best = self.best_weights
        if best is not None and not best.exists() and kept.exists():
            partial = best.with_name(f"{best.name}.partial")
            partial.mkdir(exist_ok=True)
            shutil.copyfile(kept, partial / WEIGHTS)
            partial.replace(best)

    def _save(self, step: int) -> None:
        # Weights first, then their measurement: after a kill, none is without its weights.
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._recipe.early_stopping_patience is not None and best_step(self._history) == step:
            self._save_weights(self._weights_folder(step))
            for old in self._folder.glob("best-*"):
                if old != self._weights_folder(step):
                    shutil.rmtree(old)
        manifest.write_atomically(self._file, json.dumps(self._measurements))


def _read_measurements(file: Path) -> dict[int, dict[str, float]]:
    saved = json.loads(file.read_text()) if file.exists() else {}
    return {int(step): figures for step, figures in saved.items()}


def _require_finite(name: str, *losses: float) -> None:
    for loss in losses:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{name} is {loss}: the training diverged, lower the learning_rate"
            )


def answer_nats(
    model: torch.nn.Module,
    examples: Sequence[TrainingExample],
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return the negative log-likelihood of each example's whole answer in nats, by row id.

    It does not depend on the objective or the tokenizer, so it compares trainings of different
    kinds. ``advance`` is called with the number of examples that are measured. Leaves the model in
    evaluation mode; raises ``FloatingPointError`` if not finite.
    """
    device = next(model.eval().parameters()).device
    ordered = sorted(examples, key=lambda example: example.rows[0].input_ids)  # shares prefixes
    nats: dict[str, float] = {}
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        for micro_batch in collate([asdict(example) for example in batch])["micro_batches"]:
            placed = {name: tensor.to(device) for name, tensor in micro_batch.items()}
            with torch.no_grad():
                logits = sft_trainer.answer_logits(model, placed)
                likelihoods = ModelOutputs(logits, placed).rows.tolist()
            numbers = micro_batch["example"].tolist()
            for number, likelihood in zip(numbers, likelihoods, strict=True):
                nats[batch[number].row_id] = -likelihood
        advance(start + len(batch))
    _require_finite("the loss on a validation row", *nats.values())
    return nats


def read_held_out(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, *, is_compared: bool
) -> list[TrainingExample]:
    """Read the validation examples; trainings to compare use answers, whatever their objective.

    Raises:
        ValueError: There are none, and the recipe or the comparison needs some.
    """
    if is_compared:
        recipe = recipe.model_copy(update={"objective": Sft()})
    held_out = training_examples.read_validation(snapshot, tokenizer, recipe)
    if not held_out and (is_compared or recipe.eval_steps is not None):
        raise ValueError(
            f"training on {snapshot}: eval_steps and a search need validation rows to measure the "
            "loss on, and none fits into max_length; raise validation_share"
        )
    return held_out


def measure_loss(
    trainer: CompletionTrainer, held_out: list[TrainingExample], recipe: Recipe
) -> dict[str, float]:
    """Return validation metrics; leaves the model in training mode."""
    figures = trainer.measure(held_out, recipe.per_device_train_batch_size)
    cast("PeftModel", trainer.model).train()
    return figures


def validate_adapter(
    trainer: CompletionTrainer,
    held_out: list[TrainingExample],
    snapshot: Path,
    recipe: Recipe,
    *,
    is_compared: bool,
    report: Callable[[Progress], None],
) -> tuple[dict[str, float], dict[int, float]]:
    """Return the adapter's validation metrics and, if compared, nats by validation row number."""
    if not held_out:
        return {}, {}
    size = recipe.per_device_train_batch_size

    def advance(done: int) -> None:
        if process_group.process_number() == 0:
            report(Progress("validate", done, len(held_out), "rows"))

    advance(0)
    with trainer.accelerator.autocast():  # as in a step, also where there was no step to do
        if not is_compared:
            return trainer.measure(held_out, size, advance), {}
        nats = answer_nats(cast("PeftModel", trainer.model), held_out, size, advance)
    numbers = training_examples.validation_numbers(snapshot)
    by_number = {numbers[row_id]: loss for row_id, loss in nats.items()}
    answer_tokens = sum(example.rows[0].answer_length for example in held_out)
    return {LOSS_METRIC: math.fsum(nats.values()) / answer_tokens}, by_number


class TrainingInterrupted(SystemExit):
    """SIGTERM arrived: a checkpoint was saved, from which the next run resumes."""


FIRST_STEPS = 10  # steps whose highest loss is the reference for divergence

EXPLODED_RATIO = 5.0  # a loss above the reference times this has diverged

GUESSING_RATIO = 2.0
"""Unless it is below the loss of uniform guessing times this: a resumed or warm-started training
begins with a low loss, and an unusual row then raises it more."""


class TrainingWatch(TrainerCallback):
    """Reports each step, seals checkpoints, detects divergence and stops on SIGTERM.

    ``guessing_loss`` is the loss of uniform guessing in nats, ln(vocabulary).
    """

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.count_tokens: Callable[[], int] = lambda: 0
        self.row_ids: Callable[[], Sequence[str]] = tuple
        self.is_due: Callable[[int, int], bool] = lambda _step, _steps: False  # whether to stop
        self.keep_in: Callable[[Path], None] = lambda _: None  # adds files to a checkpoint
        self.guessing_loss = 0.0
        self.interrupted = False
        self.started = time.monotonic()
        self.first_step = 0
        self.seconds = 0.0

    @contextmanager
    def for_sigterm(self) -> Generator[None]:
        """Handle SIGTERM within the block as a request to save and stop."""

        def interrupt(*_: object) -> None:
            self.interrupted = True

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Store the step at which this run starts, for its pace."""
        self.first_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Request to save and stop, in all processes at the same step."""
        is_due = self.is_due(state.global_step, state.max_steps)
        self.interrupted = process_group.any_process(self.interrupted, args.device)
        if process_group.any_process(is_due, args.device) or self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Report a step's figures.

        Raises:
            FloatingPointError: The training diverged.
        """
        if logs is None or "loss" not in logs:  # the summary at the end of a run
            return
        self._require_convergence(logs["loss"], state)
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
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Seal the checkpoint once every process has written its part."""
        assert args.output_dir is not None
        process_group.barrier()
        if process_group.process_number() == 0:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self.keep_in(checkpoint)
            checkpoints.seal_checkpoint(checkpoint)

    def _require_convergence(self, loss: float, state: TrainerState) -> None:
        # log_history comes with the checkpoint: the first steps are the training's, not this run's
        *before, _ = (entry["loss"] for entry in state.log_history if "loss" in entry)
        highest = max(before[:FIRST_STEPS], default=math.inf)
        limit = max(EXPLODED_RATIO * highest, GUESSING_RATIO * self.guessing_loss)
        if math.isfinite(loss) and loss <= limit:
            return
        rows = ", ".join(self.row_ids())
        if not before:
            raise FloatingPointError(
                f"the loss of step {state.global_step} is {loss:.4g} before anything was learned, "
                "so no learning_rate helps: the cause is the base's or the first weights (with "
                "use_dora a weight with rows of zeros, as a padding token's), a setting such as "
                f"first_token_weight, or these rows: {rows}"
            )
        raise FloatingPointError(
            f"the loss of step {state.global_step} is {loss:.4g}, that of the first steps was at "
            f"most {highest:.4g}: the training diverged; lower the learning_rate, unless the cause "
            f"is in these rows: {rows}"
        )


def peak_memory_gb() -> float:
    """Return the peak memory so far in 10^9 bytes, of the CUDA device or else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
