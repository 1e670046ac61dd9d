"""Run a training from a snapshot to an adapter, through kills and cancellations.

Imported late, since it loads torch.
"""

import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late
from datasets import Dataset  # noqa: TID253 - as above
from transformers import PrinterCallback  # noqa: TID253 - as above
from transformers.integrations.liger import apply_liger_kernel  # noqa: TID253 - as above
from trl.trainer.sft_config import SFTConfig  # noqa: TID253 - as above

from components import base as bases
from components import hardware
from components.schema import Progress
from components.train import (
    adapter,
    checkpoints,
    deciding,
    examples,
    lanes,
    peers,
    ranks,
    teacher,
    whole,
)
from components.train import order as ordering
from components.train.batches import Shape
from components.train.completion import CompletionTrainer
from components.train.lessons import Lesson
from components.train.recipe import Recipe
from components.train.watch import Interrupted, Watch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KERNELS = {
    "rms_norm": True,
    "rope": True,
    "swiglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""Liger's, where they can be used: its losses know no weights."""


def fit(
    snapshot: Path,
    base: Path,
    folder: Path,
    recipe: Recipe,
    *,
    warm_start: Path | None = None,
    report: Callable[[Progress], None],
) -> None:
    """Train an adapter on a snapshot, going on from the last checkpoint if there is one.

    Args:
        snapshot: A finished snapshot folder.
        base: The folder of the base; it is loaded afresh.
        folder: Gets checkpoints while it works, and in the end nothing but PEFT's
            ``adapter_model.safetensors`` and ``adapter_config.json``. The caller adds the manifest.
        recipe: How to train.
        warm_start: An adapter's folder to go on from.
        report: Called after each step with ``loss``, ``learning_rate``, ``tokens_per_second``, and
            at the end with ``validation_loss`` and, where people judged, ``validation_accuracy``,
            if there is anything to measure them on; ``learning.Measured`` says what they are.

    Raises:
        Interrupted: SIGTERM arrived.
        FloatingPointError: The loss is no number any more, or far above where it began.
        MemoryError: Not even one row fits into the memory.
        ValueError: The base was evaluated before, the snapshot has nothing for the objective, or
            the recipe does not fit the base or the rows.
    """
    model, tokenizer = bases.load(base, recipe.precision, for_training=True)
    train(model, tokenizer, snapshot, folder, recipe, warm_start=warm_start, report=report)


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    snapshot: Path,
    folder: Path,
    recipe: Recipe,
    *,
    warm_start: Path | None = None,
    report: Callable[[Progress], None],
) -> None:
    """Train as ``fit`` does, on a base that is loaded and was never evaluated.

    Started by ``accelerate launch``, several processes do so together: each learns from its part of
    every batch, and the first one writes and reports.
    """
    lessons = examples.read(snapshot, tokenizer, recipe)
    saved = folder / "checkpoints"
    last = checkpoints.newest(saved)
    rows = [row for lesson in lessons for row in lesson.rows]
    if hardware.found().fuses:
        apply_liger_kernel(model, KERNELS)
    adapted = adapter.attach(model, recipe, rows, warm_start=warm_start, checkpoint=last)
    watch = Watch(report)
    trainer = _trainer(adapted, tokenizer, lessons, recipe, saved, watch)
    allocation = ranks.Allocation(adapted, recipe.adalora) if recipe.method == "adalora" else None
    if allocation is not None:
        trainer.add_callback(allocation)
        trainer.after_backward = allocation.add_penalty
    peers.meet()  # all have found the same checkpoint, before others are dropped
    if peers.number() == 0:
        checkpoints.drop_irregular(saved, recipe.save_steps, keep=last)
    with watch.for_sigterm(), lanes.opened(lanes.count(adapted)) as trainer.lanes:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.lanes = None
    if watch.interrupted:
        raise Interrupted(128 + signal.SIGTERM)
    if peers.number() > 0:
        return
    adapter.average(adapted, checkpoints.regular(saved, recipe, before=trainer.state.max_steps))
    if allocation is not None:
        allocation.finish()
    _validate(trainer, examples.read_validation(snapshot, tokenizer, recipe), recipe, report)
    adapter.save(adapted, folder)
    shutil.rmtree(saved)


def _trainer(
    adapted: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    lessons: list[Lesson],
    recipe: Recipe,
    saved: Path,
    watch: Watch,
) -> CompletionTrainer:
    arguments = _arguments(recipe, saved)  # making them, the processes find each other
    with whole.hidden_from_trl(adapted):
        trainer = CompletionTrainer(
            model=adapted,
            args=arguments,
            train_dataset=_dataset(lessons, recipe),
            data_collator=lambda lessons: {"lessons": lessons},
            processing_class=tokenizer,
            callbacks=[watch],
        )
    trainer.call_token = deciding.call_token(tokenizer, recipe)
    trainer.objective = recipe.objective
    trainer.shape = shape(recipe, lanes=lanes.count(adapted))
    if recipe.objective.kind == "distillation":
        trainer.teacher = teacher.load(recipe.objective.teacher_model_name_or_path, tokenizer)
    trainer.remove_callback(PrinterCallback)  # standard output belongs to the caller's progress
    adapter.hold_in_fp32(adapted)
    watch.count_tokens = lambda: trainer.tokens_seen
    watch.row_ids = lambda: trainer.row_ids
    return trainer


def shape(recipe: Recipe, *, lanes: int) -> Shape:
    """Say how the lessons of a step are put into sequences: all of its batches are one here."""
    return Shape(
        lanes=lanes,
        parts=recipe.gradient_accumulation_steps,
        first_token_weight=recipe.first_token_weight,
        call_margin=recipe.call_margin,
        strangers=recipe.objective.kind == "kto",
        process=peers.number(),
        processes=peers.count(),
    )


def _validate(
    trainer: CompletionTrainer,
    lessons: list[Lesson],
    recipe: Recipe,
    report: Callable[[Progress], None],
) -> None:
    """Report figures of the finished adapter on what it never saw; it can't train after."""
    if lessons:
        steps = trainer.state.max_steps
        figures = trainer.measure(lessons, recipe.per_device_train_batch_size)
        report(Progress("train", steps, steps, "steps", figures))


def _arguments(recipe: Recipe, saved: Path) -> SFTConfig:
    on_gpu, computing = torch.cuda.is_available(), hardware.found()
    return SFTConfig(
        output_dir=str(saved),
        learning_rate=recipe.learning_rate,
        adam_beta2=recipe.adam_beta2,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=recipe.step_size,
        seed=recipe.seed,
        save_steps=recipe.save_steps,
        save_total_limit=recipe.average_checkpoints + 1,  # one more may come of a SIGTERM
        logging_steps=1,
        logging_nan_inf_filter=False,
        bf16=computing.half == "bf16",
        fp16=computing.half == "fp16",
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        gradient_checkpointing=recipe.gradient_checkpointing,
        train_sampling_strategy="sequential",  # examples.in_order made the order
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


def _dataset(lessons: list[Lesson], recipe: Recipe) -> Dataset:
    ids = [lesson.rows[0].input_ids for lesson in lessons]
    found = ordering.in_order(ids, recipe.step_size, recipe.seed)
    return Dataset.from_list([asdict(lessons[number]) for number in found])
