"""Plan a training: count its work, find the batch that fits, time a few steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil
import torch  # noqa: TID253 - this module is itself imported late
from transformers import AutoConfig, AutoTokenizer  # noqa: TID253 - as above

from components.schema import Progress
from components.train import fit, packing, training_examples
from components.train.plan import bases, estimate, trace
from components.train.plan.bases import Worker
from components.train.plan.estimate import BatchOption, Device, ParameterCounts, TrainingPlan
from components.train.recipe import Recipe
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def tokens_by_step(snapshot: Path, base: Path, recipe: Recipe) -> list[int]:
    """Count the tokens of each step of the first epoch of ``fit``, prompts and answers.

    Args:
        snapshot: A finished snapshot folder.
        base: The base's folder, of which only the tokenizer is loaded.
        recipe: How it is trained.
    """
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    examples = packing.order_examples(
        training_examples.read_examples(snapshot, tokenizer, recipe), recipe
    )
    counts = [sum(len(row.input_ids) for row in example.rows) for example in examples]
    size = recipe.step_size
    return [sum(counts[first : first + size]) for first in range(0, len(counts), size)]


def make_plan(
    snapshot: Path,
    base: Path,
    recipe: Recipe,
    worker: Worker,
    *,
    report: Callable[[Progress], None],
) -> TrainingPlan:
    """Plan a training of a snapshot's rows.

    Args:
        snapshot: A finished snapshot folder.
        base: The base's folder, of which the config and the tokenizer are read.
        recipe: How it will be trained.
        worker: Where.
        report: Called for each way to split a step that is tried.

    Raises:
        ValueError: The snapshot has nothing to learn for this recipe.
    """
    loaded = psutil.Process().memory_info().rss  # as much as a training has before it begins
    device, free = _training_device(worker)
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    examples = training_examples.read_examples(snapshot, tokenizer, recipe)
    steps = estimate.training_steps(examples, recipe)
    heaviest = max(steps, key=estimate.computed_tokens)
    options = BatchOptions(
        config, heaviest, recipe, device, loaded if device == "cpu" else 0, report
    )
    asked = options.find(recipe.per_device_train_batch_size, recipe.gradient_checkpointing)
    largest = _largest_option(options, free)
    return TrainingPlan(
        device=device,
        is_elsewhere=worker.gpu_memory_gb is not None,
        free=free,
        parameters=options.parameters[-1],
        work=estimate.measure_work(steps),
        heaviest_tokens=estimate.computed_tokens(heaviest),
        longest_row=max(example.length for example in examples),
        asked=asked,
        largest=largest,
    )


@dataclass
class BatchOptions:
    """The ways to split the heaviest step, each traced once, when it is asked for."""

    config: "PretrainedConfig"
    heaviest: Sequence[TrainingExample]
    recipe: Recipe
    device: Device
    rest: int
    report: Callable[[Progress], None]
    parameters: list[ParameterCounts] = field(default_factory=list[ParameterCounts])
    _known: dict[tuple[int, bool], BatchOption] = field(
        default_factory=dict[tuple[int, bool], BatchOption]
    )

    def find(self, batch: int, checkpointing: bool) -> BatchOption:
        """Trace the heaviest step in this split."""
        if (batch, checkpointing) not in self._known:
            found = self._trace(split_step(self.recipe, batch, checkpointing))
            self._known[batch, checkpointing] = found
            tried, sizes = len(self._known), len(bases.batch_splits(self.recipe.step_size))
            figures = {"batch": float(batch), "GB": found.memory.peak / 1e9}
            self.report(Progress("plan", tried, max(tried, sizes), "batch sizes", figures))
        return self._known[batch, checkpointing]

    def _trace(self, recipe: Recipe) -> BatchOption:
        parameters, step = trace.step_memory(self.config, self.heaviest, recipe, self.device)
        self.parameters.append(parameters)
        held = estimate.memory_on_gpu if self.device == "gpu" else estimate.memory_on_cpu
        return BatchOption(
            batch=recipe.per_device_train_batch_size,
            accumulation=recipe.gradient_accumulation_steps,
            checkpointing=recipe.gradient_checkpointing,
            memory=held(parameters, step, recipe, rest=self.rest),
        )


def split_step(recipe: Recipe, batch: int, checkpointing: bool) -> Recipe:
    """Give the recipe with another split of its steps."""
    return recipe.model_copy(
        update={
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": recipe.step_size // batch,
            "gradient_checkpointing": checkpointing,
        }
    )


def _largest_option(options: BatchOptions, free: int) -> BatchOption | None:
    """Find the largest batch that fits, computing activations anew only where nothing else does."""
    recipe = options.recipe
    for checkpointing in sorted({recipe.gradient_checkpointing, True}):
        batch = bases.largest_batch(
            recipe.step_size,
            lambda size, sparing=checkpointing: options.find(size, sparing).memory.peak,
            free,
        )
        if batch is not None:
            return options.find(batch, checkpointing)
    return None


def _training_device(worker: Worker) -> tuple[Device, int]:
    """Tell where it will be trained, and how many bytes are free there."""
    if worker.gpu_memory_gb is not None:
        return "gpu", int(worker.gpu_memory_gb * 1e9) - estimate.CUDA_CONTEXT
    if torch.cuda.is_available():
        return "gpu", torch.cuda.mem_get_info()[0]
    return "cpu", psutil.virtual_memory().available


LEAST_STEPS = 3  # one to warm up, and two to time


class _TimeIsUp(Exception):  # noqa: N818 - it is no error
    """The time is over."""


def calibrate(
    snapshot: Path,
    base: Path,
    recipe: Recipe,
    seconds: float,
    *,
    report: Callable[[Progress], None],
) -> None:
    """Train for so many seconds after the first step, and at least three steps.

    Args:
        snapshot: What will be trained on.
        base: The base's folder.
        recipe: How it will be trained.
        seconds: How long.
        report: Called after each step with the ``seconds`` since the first step's end, the
            ``peak_bytes`` that this process, or the GPU, has held so far, and the ``loaded_bytes``
            of them that were there before.
    """
    first: float | None = None
    loaded = float(_loaded_bytes())

    def watch(progress: Progress) -> None:
        nonlocal first
        now = time.monotonic()
        first = now if first is None else first
        figures = {"seconds": now - first, "peak_bytes": float(_peak_bytes())}
        figures["loaded_bytes"] = loaded
        report(Progress("calibrate", progress.done, progress.total, progress.unit, figures))
        if now - first >= seconds and progress.done >= LEAST_STEPS:
            raise _TimeIsUp

    with TemporaryDirectory(prefix="flywheel-calibrate-") as folder:
        try:
            fit.fit(snapshot, base, Path(folder) / "adapter", recipe, report=watch)
        except _TimeIsUp:
            return


def _peak_bytes() -> int:
    """Give the most that was held so far: by the GPU's tensors, or by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(line for line in lines if line.startswith("VmHWM:"))
    return int(held.split()[1]) * 1024  # Linux counts in KiB


def _loaded_bytes() -> int:
    return 0 if torch.cuda.is_available() else psutil.Process().memory_info().rss
