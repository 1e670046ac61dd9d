"""Train an adapter from a snapshot, resuming after interruptions: the way into this package."""

import json
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
from peft import PeftModel  # noqa: TID253 - this module is itself imported late
from transformers import PrinterCallback  # noqa: TID253 - as above
from transformers.integrations.liger import apply_liger_kernel  # noqa: TID253 - as above
from trl.trainer.sft_config import SFTConfig  # noqa: TID253 - as above

from components.models import base as bases
from components.models import device
from components.schema import Progress
from components.store import manifest
from components.store.manifest import AdapterManifest
from components.train import (
    checkpoints,
    cpu_engine,
    peft_model,
    process_group,
    rank_allocation,
    sft_trainer,
    training_examples,
)
from components.train.callbacks import (
    LOSS_METRIC,
    EarlyStopping,
    TrainingInterrupted,
    TrainingWatch,
    measure_loss,
    read_held_out,
    validate_adapter,
)
from components.train.checkpoints import StopCondition, TrainingProgress
from components.train.micro_batches import BatchLayout
from components.train.packing import Epochs, can_pack_rows
from components.train.recipe import Recipe
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


ADAPTER_CONFIG = "adapter_config.json"


def load_teacher(path: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Load a model's folder in bf16, or an adapter's on the base that it names.

    Raises:
        ValueError: Its tokens are not those of ``tokenizer``, so that it can't say how likely it
            finds them.
    """
    model, own = bases.load(base_of_teacher(path), "bf16", for_training=False)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"loading the teacher {path}: its vocabulary of {len(own)} tokens is not the base's of "
            f"{len(tokenizer)}; a distillation wants two models with one tokenizer"
        )
    if (path / ADAPTER_CONFIG).exists():
        return cast("PreTrainedModel", PeftModel.from_pretrained(model, str(path)).eval())
    return model


def base_of_teacher(path: Path) -> Path:
    """Find the base of an adapter's folder; a model's is its own.

    An adapter of ours knows where its base lay, whatever that is served as.
    """
    config = path / ADAPTER_CONFIG
    if not config.exists():
        return path
    if manifest.is_finished(path) and (known := AdapterManifest.read(path).base_path):
        return known
    return Path(json.loads(config.read_text())["base_model_name_or_path"])


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
    stop: StopCondition | None = None,
) -> TrainingProgress:
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
    is_split = recipe.fsdp is not None and process_group.are_peers_expected()
    model, tokenizer = bases.load(base, recipe.precision, for_training=True, on_host=is_split)
    return train_loaded(
        model,
        tokenizer,
        snapshot,
        folder,
        recipe,
        warm_start=warm_start,
        report=report,
        stop=stop,
    )


def train_loaded(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    snapshot: Path,
    folder: Path,
    recipe: Recipe,
    *,
    warm_start: Path | None = None,
    report: Callable[[Progress], None],
    stop: StopCondition | None = None,
) -> TrainingProgress:
    """Train as ``fit`` does, on a base that is loaded and was never evaluated.

    Started by ``accelerate launch``, several processes do so together: each learns from its part of
    every batch, and the first one writes and reports.
    """
    is_compared = stop is not None
    selection = training_examples.select_examples(snapshot, tokenizer, recipe)
    lessons = selection.lessons
    held = read_held_out(snapshot, tokenizer, recipe, is_compared=is_compared)
    saved = folder / "checkpoints"
    last = checkpoints.newest_checkpoint(saved)
    adapted = _attach_adapter(model, recipe, lessons, warm_start, last)
    watch = TrainingWatch(report)
    trainer = _make_trainer(adapted, tokenizer, lessons, recipe, saved, watch)
    if warm_start is not None and recipe.objective.kind in ("dpo", "kto"):
        trainer.start = sft_trainer.copy_start_weights(adapted)
    allocation = _allocate_ranks(trainer, adapted, recipe)
    halting = EarlyStopping(
        recipe,
        stop or StopCondition(),
        saved,
        measure=partial(measure_loss, trainer, held, recipe),
        keep=partial(peft_model.keep_weights, adapted),
        report=report,
        writes=process_group.process_number() == 0,
    )
    watch.is_due = halting.is_due
    reached = _train_on(trainer, watch, halting, saved, last)
    if reached.finished:
        _choose_weights(
            adapted, halting, checkpoints.regular_checkpoints(saved, recipe, before=reached.step)
        )
        if allocation is not None:
            allocation.finish()
    with trainer.in_lanes():
        figures, nats = validate_adapter(trainer, held, snapshot, recipe, is_compared=is_compared)
    process_group.barrier()  # all have read what they need of the checkpoints
    if process_group.process_number() > 0:
        return reached
    if figures:
        report(Progress("train", reached.step, reached.steps, "steps", figures))
    if reached.finished:
        peft_model.save_adapter(adapted, folder)
        shutil.rmtree(saved)
    elif stop is not None and stop.keep is not None:
        peft_model.keep_weights(adapted, Path(stop.keep))
    rows = selection.record(recipe)
    return replace(reached, validation_loss=figures.get(LOSS_METRIC), nats=nats, rows=rows)


def _attach_adapter(
    model: "PreTrainedModel",
    recipe: Recipe,
    lessons: list[TrainingExample],
    warm_start: Path | None,
    last: Path | None,
) -> "PeftModel":
    if device.best_computing().fuses:
        apply_liger_kernel(model, KERNELS)
    rows = [row for lesson in lessons for row in lesson.rows]
    return peft_model.attach_trainable(model, recipe, rows, warm_start=warm_start, checkpoint=last)


def _allocate_ranks(
    trainer: CompletionTrainer, adapted: "PeftModel", recipe: Recipe
) -> rank_allocation.RankAllocation | None:
    """Let AdaLoRA share out its ranks after each step."""
    if recipe.method != "adalora":
        return None
    allocation = rank_allocation.RankAllocation(adapted, recipe.adalora)
    trainer.add_callback(allocation)
    trainer.after_backward = allocation.add_penalty
    return allocation


def _make_trainer(
    adapted: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    lessons: list[TrainingExample],
    recipe: Recipe,
    saved: Path,
    watch: TrainingWatch,
) -> CompletionTrainer:
    arguments = _training_arguments(recipe, saved)  # making them, the processes find each other
    if recipe.fsdp is not None and process_group.process_count() > 1:
        process_group.shard_base(adapted, arguments.device)
    with peft_model.hidden_from_trl(adapted):
        trainer = CompletionTrainer(
            model=adapted,
            args=arguments,
            train_dataset=Dataset.from_list([asdict(one) for one in lessons]),
            data_collator=lambda lessons: {"lessons": lessons},
            processing_class=tokenizer,
            callbacks=[watch],
        )
    trainer.epochs = Epochs(lessons, recipe)
    trainer.call_token = training_examples.call_token(tokenizer, recipe)
    trainer.objective = recipe.objective
    engine = cpu_engine.for_device(arguments.device.type)
    trainer.shape = batch_layout(recipe, lanes=engine.lanes(adapted) if engine else 1)
    if process_group.is_sharded(adapted) and not can_pack_rows(adapted, recipe.max_length):
        trainer.shape = replace(trainer.shape, longest=1)  # all processes ask equally often
    if recipe.objective.kind == "distillation":
        trainer.teacher = load_teacher(recipe.objective.teacher_model_name_or_path, tokenizer)
    trainer.remove_callback(PrinterCallback)  # standard output belongs to the caller's progress
    peft_model.hold_in_fp32(adapted)
    process_group.broadcast_weights(
        [weight for weight in adapted.parameters() if weight.requires_grad]
    )
    trainer.pools_gradients_itself()
    watch.count_tokens = lambda: trainer.tokens_seen
    watch.row_ids = lambda: trainer.row_ids
    watch.guessing = math.log(len(tokenizer))
    return trainer


def batch_layout(recipe: Recipe, *, lanes: int) -> BatchLayout:
    """Say how the lessons of a step are put into sequences: all of its batches are one here."""
    return BatchLayout(
        lanes=lanes,
        parts=recipe.gradient_accumulation_steps,
        first_token_weight=recipe.first_token_weight,
        call_margin=recipe.call_margin,
        strangers=recipe.objective.kind == "kto",
        process=process_group.process_number(),
        processes=process_group.process_count(),
    )


def _train_on(
    trainer: CompletionTrainer,
    watch: TrainingWatch,
    halting: EarlyStopping,
    saved: Path,
    last: Path | None,
) -> TrainingProgress:
    """Train on from the last checkpoint to where it stops, and say how far it came.

    Raises:
        Interrupted: SIGTERM arrived.
    """
    process_group.barrier()  # all have found the same checkpoint, before others are dropped
    if process_group.process_number() == 0:
        checkpoints.drop_irregular(saved, int(trainer.args.save_steps), keep=last)
    adapted = cast("PeftModel", trainer.model)
    step, steps = checkpoints.checkpoint_progress(last) if last else (0, 0)
    if last and halting.has_stopped(step):
        peft_model.restore_weights(adapted, last)
    else:
        with watch.for_sigterm(), trainer.in_lanes():
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        step, steps = trainer.state.global_step, trainer.state.max_steps
    if watch.interrupted:
        raise TrainingInterrupted(128 + signal.SIGTERM)
    return TrainingProgress(
        step=step,
        steps=steps,
        tokens=trainer.tokens_seen,
        stepping=watch.seconds,
        parameters=peft_model.count_trained(adapted),
        finished=halting.is_end(step, steps),
    )


def _choose_weights(adapted: "PeftModel", halting: EarlyStopping, regular: list[Path]) -> None:
    """Set the adapter to what the recipe wants of a training: its best, or a mean of its last."""
    if halting.best_weights:
        peft_model.restore_weights(adapted, halting.best_weights)
    else:
        peft_model.average_weights(adapted, regular)


def _training_arguments(recipe: Recipe, saved: Path) -> SFTConfig:
    on_gpu, computing = torch.cuda.is_available(), device.best_computing()
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
