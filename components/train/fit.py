"""Train an adapter from a snapshot, resuming after interruptions: the package's entry point."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import torch  # noqa: TID253 - this module is itself imported late
from datasets import Dataset  # noqa: TID253 - as above
from peft import PeftModel  # noqa: TID253 - this module is itself imported late
from transformers import (  # noqa: TID253 - as above
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
)
from transformers.integrations.liger import apply_liger_kernel  # noqa: TID253 - as above
from trl.trainer.sft_config import SFTConfig  # noqa: TID253 - as above

from components.models import base as bases
from components.models import device
from components.schema import Progress
from components.store import output_folders
from components.store.manifest import AdapterManifest
from components.train import (
    checkpoints,
    device_engine,
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
from components.train.micro_batches import ONE_BY_ONE, BatchLayout
from components.train.packing import Epochs, can_pack_rows
from components.train.recipe import ADAM_BETA2, Recipe
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import TrainingExample

ADAPTER_CONFIG = "adapter_config.json"


def load_teacher(path: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Load a model folder in bf16, or an adapter folder on its base.

    Raises:
        ValueError: Its vocabulary is not ``tokenizer``'s.
    """
    model, own = bases.load(base_of_teacher(path), "bf16", for_training=False)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"loading the teacher {path}: its vocabulary of {len(own)} tokens is not the base's of "
            f"{len(tokenizer)}; a distillation needs two models with the same tokenizer"
        )
    if (path / ADAPTER_CONFIG).exists():
        return cast("PreTrainedModel", PeftModel.from_pretrained(model, str(path)).eval())
    return model


def base_of_teacher(path: Path) -> Path:
    """Return the base's folder of an adapter folder; a model folder is its own base."""
    config = path / ADAPTER_CONFIG
    if not config.exists():
        return path
    # our manifest has the base's local path; PEFT's config may have the name it is served under
    if output_folders.fetch(path) and (known := AdapterManifest.read(path).base_path):
        return known
    return Path(json.loads(config.read_text())["base_model_name_or_path"])


KERNELS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""Which of Liger's kernels for a base to leave out: its losses don't support token weights. The
others are Liger's choice, since it refuses those that it lacks for a base (rotary embeddings of
Qwen 3.5 and GLM 4)."""


LoadedBase: TypeAlias = tuple[PreTrainedModel, PreTrainedTokenizerBase]
"""A base that was loaded for training and never evaluated."""


def fit(
    snapshot: Path,
    base: Path | LoadedBase,
    folder: Path,
    recipe: Recipe,
    *,
    warm_start: Path | None = None,
    report: Callable[[Progress], None],
    stop: StopCondition | None = None,
) -> TrainingProgress:
    """Train an adapter on a snapshot, resuming from the last checkpoint if there is one.

    Several processes started by ``accelerate launch`` train together: each computes its part of
    every batch, and the first one writes and reports.

    Args:
        snapshot: A finished snapshot folder.
        base: The base, or its folder.
        folder: Has checkpoints during the training, and after it only PEFT's
            ``adapter_model.safetensors`` and ``adapter_config.json``. The caller adds the manifest.
        recipe: The adapter's.
        warm_start: The folder of an adapter to start from.
        report: Called after each step with ``loss``, ``learning_rate``, ``tokens_per_second`` and
            more, and, if there are validation rows, after every ``eval_steps`` steps and at the end
            with the figures of ``objective_losses.ValidationMetrics``.
        stop: When to interrupt a training that will be compared with others; ``validation_loss`` is
            then the mean nats per token of the validation rows' answers, for any objective.

    Raises:
        TrainingInterrupted: SIGTERM arrived.
        FloatingPointError: The loss is not finite, or far above that of the first steps.
        MemoryError: Not even one row fits into memory.
        ValueError: The base was evaluated before, its chat template ends no answer or it lacks a
            token of its tokenizer, the snapshot has no rows for the objective, or the recipe does
            not match the base or the rows.
    """
    if isinstance(base, Path):
        is_sharded = recipe.fsdp is not None and process_group.are_peers_expected()
        base = bases.load(base, recipe.precision, for_training=True, on_host=is_sharded)
    model, tokenizer = base
    training_examples.require_end_token(tokenizer, bases.end_tokens(model, tokenizer))
    is_compared = stop is not None
    selection = training_examples.select_examples(snapshot, tokenizer, recipe)
    examples = selection.examples
    held_out = read_held_out(snapshot, tokenizer, recipe, is_compared=is_compared)
    embedded = len(cast("torch.Tensor", model.get_input_embeddings().weight))
    training_examples.require_embedded([*examples, *held_out], tokenizer, embedded)
    saved = folder / checkpoints.CHECKPOINTS
    checkpoint = checkpoints.newest_checkpoint(saved, recipe)
    if device.best_computing().fuses:
        apply_liger_kernel(model, KERNELS)
    rows = [row for example in examples for row in example.rows]
    adapted = peft_model.attach_trainable(
        model, recipe, rows, warm_start=warm_start, checkpoint=checkpoint
    )
    watch = TrainingWatch(report)
    trainer = _make_trainer(adapted, tokenizer, examples, recipe, saved, watch)
    is_base = warm_start is None and recipe.starts_as_base
    if recipe.objective.kind in ("dpo", "kto") and not is_base:
        trainer.start_weights = sft_trainer.copy_start_weights(adapted)
    allocation = None
    if recipe.method == "adalora":
        allocation = rank_allocation.RankAllocation(adapted, recipe.adalora)
        trainer.add_callback(allocation)
        trainer.after_backward = allocation.add_penalty
    early_stopping = EarlyStopping(
        recipe,
        stop or StopCondition(),
        saved,
        measure=partial(measure_loss, trainer, held_out, recipe),
        save_weights=partial(peft_model.keep_weights, adapted),
        report=report,
        writes=process_group.process_number() == 0,
        checkpoint=checkpoint,
    )
    watch.is_due, watch.keep_in = early_stopping.is_due, early_stopping.keep_in
    progress = _run_steps(trainer, watch, early_stopping, saved, checkpoint)
    if progress.finished:
        # Others may not have its files, or find another of two almost equal losses the lowest.
        if process_group.process_number() == 0:
            if early_stopping.best_weights:
                peft_model.restore_weights(adapted, early_stopping.best_weights)
            else:
                regular = checkpoints.regular_checkpoints(saved, recipe, before=progress.step)
                peft_model.average_weights(adapted, regular)
        process_group.broadcast_weights(
            [weight for weight in adapted.parameters() if weight.requires_grad]
        )
        if allocation is not None:
            allocation.finish()
    with trainer.in_threads():
        figures, nats = validate_adapter(
            trainer, held_out, snapshot, recipe, is_compared=is_compared, report=report
        )
    process_group.barrier()  # all have read what they need of the checkpoints
    if process_group.process_number() > 0:
        return progress
    if figures:
        report(Progress("train", progress.step, progress.steps, "steps", figures))
    if progress.finished:
        peft_model.save_adapter(adapted, folder)
        shutil.rmtree(saved)
    elif stop is not None and stop.keep is not None:
        peft_model.keep_weights(adapted, Path(stop.keep))
    learned = selection.record(recipe, early_stopping.learned_steps(progress.step))
    return replace(progress, validation_loss=figures.get(LOSS_METRIC), nats=nats, rows=learned)


def _make_trainer(
    adapted: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[TrainingExample],
    recipe: Recipe,
    saved: Path,
    watch: TrainingWatch,
) -> CompletionTrainer:
    arguments = _training_arguments(recipe, saved)  # this joins the process group
    if recipe.fsdp is not None and process_group.process_count() > 1:
        process_group.shard_base(adapted, arguments.device)
    with peft_model.hidden_from_trl(adapted):
        trainer = CompletionTrainer(
            model=adapted,
            args=arguments,
            train_dataset=Dataset.from_list([asdict(example) for example in examples]),
            data_collator=lambda examples: {"examples": examples},
            processing_class=tokenizer,
            callbacks=[watch],
        )
    trainer.epochs = Epochs(examples, recipe)
    trainer.call_token = training_examples.call_token(tokenizer, recipe)
    trainer.objective = recipe.objective
    engine = device_engine.for_device(arguments.device.type)
    trainer.layout = batch_layout(recipe, threads=engine.thread_count(adapted) if engine else 1)
    if process_group.is_sharded(adapted) and not can_pack_rows(adapted, recipe.max_length):
        # Equally many forward passes.
        trainer.layout = replace(trainer.layout, max_tokens=ONE_BY_ONE)
    if recipe.objective.kind == "distillation":
        trainer.teacher = load_teacher(recipe.objective.teacher_model_name_or_path, tokenizer)
    trainer.remove_callback(PrinterCallback)  # standard output belongs to the caller's progress
    peft_model.keep_in_fp32(adapted)
    process_group.broadcast_weights(
        [weight for weight in adapted.parameters() if weight.requires_grad]
    )
    trainer.disable_accelerate_wrapper()
    watch.count_tokens = lambda: trainer.tokens_seen
    watch.row_ids = lambda: trainer.row_ids
    watch.guessing_loss = math.log(len(tokenizer))
    return trainer


def batch_layout(recipe: Recipe, *, threads: int) -> BatchLayout:
    """Return the layout of a step: its accumulated batches are collated as one."""
    return BatchLayout(
        threads=threads,
        min_sequences=recipe.gradient_accumulation_steps,
        first_token_weight=recipe.first_token_weight,
        call_margin=recipe.call_margin,
        kl_pairs=recipe.objective.kind == "kto",
        max_length=recipe.max_length,
        process=process_group.process_number(),
        processes=process_group.process_count(),
    )


def _run_steps(
    trainer: CompletionTrainer,
    watch: TrainingWatch,
    early_stopping: EarlyStopping,
    saved: Path,
    checkpoint: Path | None,
) -> TrainingProgress:
    process_group.barrier()  # all have chosen their checkpoint before others are deleted
    if process_group.process_number() == 0:
        checkpoints.drop_irregular(saved, int(trainer.args.save_steps), keep=checkpoint)
    adapted = cast("PeftModel", trainer.model)
    step, steps = checkpoints.checkpoint_progress(checkpoint) if checkpoint else (0, 0)
    if checkpoint and early_stopping.has_stopped(step):
        peft_model.restore_weights(adapted, checkpoint)
    else:
        with watch.for_sigterm(), trainer.in_threads():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        step, steps = trainer.state.global_step, trainer.state.max_steps
    if watch.interrupted:
        raise TrainingInterrupted(128 + signal.SIGTERM)
    return TrainingProgress(
        step=step,
        steps=steps,
        tokens=trainer.tokens_seen,
        stepping=watch.seconds,
        parameters=peft_model.count_trained(adapted),
        finished=early_stopping.is_end(step, steps),
    )


def _training_arguments(recipe: Recipe, saved: Path) -> SFTConfig:
    on_gpu, computing = torch.cuda.is_available(), device.best_computing()
    return SFTConfig(
        output_dir=str(saved),
        learning_rate=recipe.learning_rate,
        adam_beta2=ADAM_BETA2,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=recipe.step_size,
        seed=recipe.seed,
        save_steps=recipe.save_steps,
        save_total_limit=recipe.average_checkpoints + 1,  # SIGTERM may add one
        logging_steps=1,
        logging_nan_inf_filter=False,
        bf16=computing.products == "bf16",
        fp16=computing.products == "fp16",
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        gradient_checkpointing=recipe.gradient_checkpointing,
        router_aux_loss_coef=0.0,  # our losses have none, and it fails on the mask of packed rows
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
