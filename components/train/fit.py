"""Run a training from a snapshot to an adapter, through kills and cancellations.

Imported late, since it loads torch.
"""

import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

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
    asides,
    checkpoints,
    cpu_engine,
    deciding,
    examples,
    peers,
    ranks,
    sharding,
    teacher,
    whole,
)
from components.train.batches import Shape
from components.train.completion import CompletionTrainer
from components.train.early import LOSS, Halting
from components.train.lessons import Lesson
from components.train.order import Epochs
from components.train.packable import packs
from components.train.recipe import Recipe
from components.train.stops import Reached, Stop
from components.train.validating import held_out, measure, validate
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
    stop: Stop | None = None,
) -> Reached:
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
            if there is anything to measure them on; ``learning.Measured`` says what they are. After
            every ``eval_steps`` steps, too, if the recipe says so.
        stop: Where to stop before the end, as one of several trainings that are to be compared:
            then ``validation_loss`` is that of the validation rows' answers, for any objective.

    Raises:
        Interrupted: SIGTERM arrived.
        FloatingPointError: The loss is no number any more, or far above where it began.
        MemoryError: Not even one row fits into the memory.
        ValueError: The base was evaluated before, the snapshot has nothing for the objective, or
            the recipe does not fit the base or the rows.
    """
    is_split = recipe.fsdp is not None and peers.are_expected()
    model, tokenizer = bases.load(base, recipe.precision, for_training=True, on_host=is_split)
    return train(
        model,
        tokenizer,
        snapshot,
        folder,
        recipe,
        warm_start=warm_start,
        report=report,
        stop=stop,
    )


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    snapshot: Path,
    folder: Path,
    recipe: Recipe,
    *,
    warm_start: Path | None = None,
    report: Callable[[Progress], None],
    stop: Stop | None = None,
) -> Reached:
    """Train as ``fit`` does, on a base that is loaded and was never evaluated.

    Started by ``accelerate launch``, several processes do so together: each learns from its part of
    every batch, and the first one writes and reports.
    """
    is_compared = stop is not None
    selection = examples.select(snapshot, tokenizer, recipe)
    lessons = selection.lessons
    held = held_out(snapshot, tokenizer, recipe, is_compared=is_compared)
    saved = folder / "checkpoints"
    last = checkpoints.newest(saved)
    adapted = _adapted(model, recipe, lessons, warm_start, last)
    watch = Watch(report)
    trainer = _trainer(adapted, tokenizer, lessons, recipe, saved, watch)
    if warm_start is not None and recipe.objective.kind in ("dpo", "kto"):
        trainer.start = asides.start_of(adapted)
    allocation = _allocation(trainer, adapted, recipe)
    halting = Halting(
        recipe,
        stop or Stop(),
        saved,
        measure=partial(measure, trainer, held, recipe),
        keep=partial(adapter.keep, adapted),
        report=report,
        writes=peers.number() == 0,
    )
    watch.is_due = halting.is_due
    reached = _advance(trainer, watch, halting, saved, last)
    if reached.finished:
        _settle(adapted, halting, checkpoints.regular(saved, recipe, before=reached.step))
        if allocation is not None:
            allocation.finish()
    with trainer.in_lanes():
        figures, nats = validate(trainer, held, snapshot, recipe, is_compared=is_compared)
    peers.meet()  # all have read what they need of the checkpoints
    if peers.number() > 0:
        return reached
    if figures:
        report(Progress("train", reached.step, reached.steps, "steps", figures))
    if reached.finished:
        adapter.save(adapted, folder)
        shutil.rmtree(saved)
    elif stop is not None and stop.keep is not None:
        adapter.keep(adapted, Path(stop.keep))
    rows = selection.record(recipe)
    return replace(reached, validation_loss=figures.get(LOSS), nats=nats, rows=rows)


def _adapted(
    model: "PreTrainedModel",
    recipe: Recipe,
    lessons: list[Lesson],
    warm_start: Path | None,
    last: Path | None,
) -> "PeftModel":
    if hardware.found().fuses:
        apply_liger_kernel(model, KERNELS)
    rows = [row for lesson in lessons for row in lesson.rows]
    return adapter.attach(model, recipe, rows, warm_start=warm_start, checkpoint=last)


def _allocation(
    trainer: CompletionTrainer, adapted: "PeftModel", recipe: Recipe
) -> ranks.Allocation | None:
    """Let AdaLoRA share out its ranks after each step."""
    if recipe.method != "adalora":
        return None
    allocation = ranks.Allocation(adapted, recipe.adalora)
    trainer.add_callback(allocation)
    trainer.after_backward = allocation.add_penalty
    return allocation


def _trainer(
    adapted: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    lessons: list[Lesson],
    recipe: Recipe,
    saved: Path,
    watch: Watch,
) -> CompletionTrainer:
    arguments = _arguments(recipe, saved)  # making them, the processes find each other
    if recipe.fsdp is not None and peers.count() > 1:
        sharding.shard(adapted, arguments.device)
    with whole.hidden_from_trl(adapted):
        trainer = CompletionTrainer(
            model=adapted,
            args=arguments,
            train_dataset=Dataset.from_list([asdict(one) for one in lessons]),
            data_collator=lambda lessons: {"lessons": lessons},
            processing_class=tokenizer,
            callbacks=[watch],
        )
    trainer.epochs = Epochs(lessons, recipe)
    trainer.call_token = deciding.call_token(tokenizer, recipe)
    trainer.objective = recipe.objective
    engine = cpu_engine.for_device(arguments.device.type)
    trainer.shape = shape(recipe, lanes=engine.lanes(adapted) if engine else 1)
    if sharding.is_sharded(adapted) and not packs(adapted, recipe.max_length):
        trainer.shape = replace(trainer.shape, longest=1)  # all processes ask equally often
    if recipe.objective.kind == "distillation":
        trainer.teacher = teacher.load(recipe.objective.teacher_model_name_or_path, tokenizer)
    trainer.remove_callback(PrinterCallback)  # standard output belongs to the caller's progress
    adapter.hold_in_fp32(adapted)
    peers.agree([weight for weight in adapted.parameters() if weight.requires_grad])
    trainer.pools_gradients_itself()
    watch.count_tokens = lambda: trainer.tokens_seen
    watch.row_ids = lambda: trainer.row_ids
    watch.guessing = math.log(len(tokenizer))
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


def _advance(
    trainer: CompletionTrainer, watch: Watch, halting: Halting, saved: Path, last: Path | None
) -> Reached:
    """Train on from the last checkpoint to where it stops, and say how far it came.

    Raises:
        Interrupted: SIGTERM arrived.
    """
    peers.meet()  # all have found the same checkpoint, before others are dropped
    if peers.number() == 0:
        checkpoints.drop_irregular(saved, int(trainer.args.save_steps), keep=last)
    adapted = cast("PeftModel", trainer.model)
    step, steps = checkpoints.progress(last) if last else (0, 0)
    if last and halting.has_stopped(step):
        adapter.restore(adapted, last)
    else:
        with watch.for_sigterm(), trainer.in_lanes():
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        step, steps = trainer.state.global_step, trainer.state.max_steps
    if watch.interrupted:
        raise Interrupted(128 + signal.SIGTERM)
    return Reached(
        step=step,
        steps=steps,
        tokens=trainer.tokens_seen,
        stepping=watch.seconds,
        parameters=adapter.size(adapted),
        finished=halting.is_end(step, steps),
    )


def _settle(adapted: "PeftModel", halting: Halting, regular: list[Path]) -> None:
    """Set the adapter to what the recipe wants of a training: its best, or a mean of its last."""
    if halting.best_weights:
        adapter.restore(adapted, halting.best_weights)
    else:
        adapter.average(adapted, regular)


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
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
