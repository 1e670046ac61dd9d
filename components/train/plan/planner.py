"""Plan a training: count its work, find the largest batch that fits, time a few steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil
import torch  # noqa: TID253 - this module is itself imported late
from transformers import AutoConfig, AutoTokenizer  # noqa: TID253 - as above

from components.models.device import trained_in
from components.models.machine import available_memory
from components.schema import Progress
from components.train import fit, packing, training_examples
from components.train.plan import bases, estimate, trace
from components.train.plan.estimate import BatchOption, Device, ParameterCounts, TrainingPlan
from components.train.recipe import Recipe, Worker
from components.train.training_examples import NoExamplesError, TrainingExample

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def tokens_by_step(snapshot: Path, base: Path, recipe: Recipe) -> list[list[int]]:
    """Count the tokens of each step of ``fit`` by epoch, prompts and answers.

    The last epoch is whole. Without an example to learn there is no epoch; training then fails, and
    has the reason.
    """
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    try:
        examples = training_examples.select_examples(snapshot, tokenizer, recipe).examples
    except NoExamplesError:
        return []
    epochs = (
        packing.order_examples(examples, recipe, epoch)
        for epoch in range(ceil(recipe.num_train_epochs))
    )
    lengths = ([sum(len(row.input_ids) for row in each.rows) for each in epoch] for epoch in epochs)
    size = recipe.step_size
    return [
        [sum(epoch[start : start + size]) for start in range(0, len(epoch), size)]
        for epoch in lengths
    ]


def make_plan(
    snapshot: Path,
    base: Path,
    recipe: Recipe,
    worker: Worker,
    *,
    report: Callable[[Progress], None],
) -> TrainingPlan:
    """Plan a training.

    Args:
        snapshot: A finished snapshot folder.
        base: The base's folder; only its config and tokenizer are read.
        recipe: The training's.
        worker: The machine.
        report: Called for each split that is tried.

    Raises:
        ValueError: The snapshot has nothing to learn for this recipe.
    """
    loaded = psutil.Process().memory_info().rss  # a training holds as much before it begins
    device, free = _training_device(worker)
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    examples = training_examples.select_examples(snapshot, tokenizer, recipe).examples
    steps = estimate.training_steps(examples, recipe)
    heaviest = max(steps, key=estimate.computed_tokens)
    options = BatchOptions(
        config, heaviest, recipe, device, loaded if device == "cpu" else 0, report
    )
    asked = options.option(recipe.per_device_train_batch_size, recipe.gradient_checkpointing)
    largest = _largest_option(options, free)
    return TrainingPlan(
        device=device,
        products=trained_in(),
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
    """The splits of the step with the most tokens, each traced once, when it is needed."""

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

    def option(self, batch: int, checkpointing: bool) -> BatchOption:
        """Return this split with its memory."""
        if (batch, checkpointing) not in self._known:
            option = self._trace(batch, checkpointing)
            self._known[batch, checkpointing] = option
            tried, sizes = len(self._known), len(bases.batch_splits(self.recipe.step_size))
            figures = {"batch": float(batch), "peak_memory_gb": option.memory.peak / 1e9}
            self.report(Progress("plan", tried, max(tried, sizes), "batch sizes", figures))
        return self._known[batch, checkpointing]

    def _trace(self, batch: int, checkpointing: bool) -> BatchOption:
        accumulation = self.recipe.step_size // batch
        split = self.recipe.model_copy(
            update={
                "per_device_train_batch_size": batch,
                "gradient_accumulation_steps": accumulation,
                "gradient_checkpointing": checkpointing,
            }
        )
        parameters, step = trace.step_memory(self.config, self.heaviest, split, self.device)
        self.parameters.append(parameters)
        memory = estimate.training_memory(parameters, step, split, self.device, rest=self.rest)
        return BatchOption(batch, accumulation, checkpointing, memory)


def _largest_option(options: BatchOptions, free: int) -> BatchOption | None:
    recipe = options.recipe
    for checkpointing in sorted({recipe.gradient_checkpointing, True}):  # only if needed: slower
        batch = bases.largest_batch(
            recipe.step_size,
            lambda size, saves=checkpointing: options.option(size, saves).memory.peak,
            free,
        )
        if batch is not None:
            return options.option(batch, checkpointing)
    return None


def _training_device(worker: Worker) -> tuple[Device, int]:
    """Return the device of the training and its free bytes."""
    if worker.gpu_memory_gb is not None:
        return "gpu", int(worker.gpu_memory_gb * 1e9) - estimate.CUDA_CONTEXT
    if torch.cuda.is_available():
        return "gpu", torch.cuda.mem_get_info()[0]
    return "cpu", available_memory()


LEAST_STEPS = 3  # one to warm up, and two to time


class _TimeIsUp(Exception):  # noqa: N818 - not an error
    pass


def calibrate(
    snapshot: Path,
    base: Path,
    recipe: Recipe,
    seconds: float,
    *,
    report: Callable[[Progress], None],
) -> None:
    """Train for this many seconds after the first step, and at least three steps; save nothing.

    Args:
        snapshot: A finished snapshot folder.
        base: The base's folder.
        recipe: The training's.
        seconds: The duration.
        report: Called after each step with the ``seconds`` since the end of the first, the
            ``peak_bytes`` of this process or the GPU so far, and the ``loaded_bytes`` of before.
    """
    first: float | None = None
    is_gpu = torch.cuda.is_available()
    loaded = 0.0 if is_gpu else float(psutil.Process().memory_info().rss)

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
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024  # Linux counts in KiB
