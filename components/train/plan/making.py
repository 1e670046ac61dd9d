"""Plan a training: count it, find the batch that fits, and say what each part of memory takes.

Imported late, since it loads torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch  # noqa: TID253 - this module is itself imported late
from transformers import AutoConfig, AutoTokenizer  # noqa: TID253 - as above

from components.schema import Progress
from components.train import examples
from components.train.lessons import Lesson
from components.train.plan import alive, fitting, memory, work
from components.train.plan.fitting import Worker
from components.train.plan.parameters import Parameters
from components.train.plan.planned import Device, Option, Plan
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def make(
    snapshot: Path,
    base: Path,
    recipe: Recipe,
    worker: Worker,
    *,
    report: Callable[[Progress], None],
) -> Plan:
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
    device, free = _place(worker)
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    lessons = examples.read(snapshot, tokenizer, recipe)
    steps = work.steps(lessons, recipe)
    heaviest = max(steps, key=work.computed)
    options = Options(config, heaviest, recipe, device, loaded if device == "cpu" else 0, report)
    asked = options.find(recipe.per_device_train_batch_size, recipe.gradient_checkpointing)
    largest = _largest(options, free)
    return Plan(
        device=device,
        is_elsewhere=worker.gpu_memory_gb is not None,
        free=free,
        parameters=options.parameters[-1],
        work=work.measure(steps),
        heaviest_tokens=work.computed(heaviest),
        longest_row=max(lesson.length for lesson in lessons),
        asked=asked,
        largest=largest,
    )


@dataclass
class Options:
    """The ways to split the heaviest step, each traced once, when it is asked for."""

    config: "PretrainedConfig"
    heaviest: Sequence[Lesson]
    recipe: Recipe
    device: Device
    rest: int
    report: Callable[[Progress], None]
    parameters: list[Parameters] = field(default_factory=list[Parameters])
    _known: dict[tuple[int, bool], Option] = field(default_factory=dict[tuple[int, bool], Option])

    def find(self, batch: int, checkpointing: bool) -> Option:
        """Trace the heaviest step in this split."""
        if (batch, checkpointing) not in self._known:
            found = self._trace(split(self.recipe, batch, checkpointing))
            self._known[batch, checkpointing] = found
            tried, sizes = len(self._known), len(fitting.splits(self.recipe.step_size))
            figures = {"batch": float(batch), "GB": found.memory.peak / 1e9}
            self.report(Progress("plan", tried, max(tried, sizes), "batch sizes", figures))
        return self._known[batch, checkpointing]

    def _trace(self, recipe: Recipe) -> Option:
        parameters, step = alive.step(self.config, self.heaviest, recipe, self.device)
        self.parameters.append(parameters)
        held = memory.on_gpu if self.device == "gpu" else memory.on_cpu
        return Option(
            batch=recipe.per_device_train_batch_size,
            accumulation=recipe.gradient_accumulation_steps,
            checkpointing=recipe.gradient_checkpointing,
            memory=held(parameters, step, recipe, rest=self.rest),
        )


def split(recipe: Recipe, batch: int, checkpointing: bool) -> Recipe:
    """Give the recipe with another split of its steps."""
    return recipe.model_copy(
        update={
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": recipe.step_size // batch,
            "gradient_checkpointing": checkpointing,
        }
    )


def _largest(options: Options, free: int) -> Option | None:
    """Find the largest batch that fits, computing activations anew only where nothing else does."""
    recipe = options.recipe
    for checkpointing in sorted({recipe.gradient_checkpointing, True}):
        batch = fitting.largest(
            recipe.step_size,
            lambda size, sparing=checkpointing: options.find(size, sparing).memory.peak,
            free,
        )
        if batch is not None:
            return options.find(batch, checkpointing)
    return None


def _place(worker: Worker) -> tuple[Device, int]:
    """Tell where it will be trained, and how many bytes are free there."""
    if worker.gpu_memory_gb is not None:
        return "gpu", int(worker.gpu_memory_gb * 1e9) - memory.CONTEXT
    if torch.cuda.is_available():
        return "gpu", torch.cuda.mem_get_info()[0]
    return "cpu", psutil.virtual_memory().available
