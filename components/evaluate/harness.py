"""Measure models on tasks with lm-eval: one base in memory, adapters by turns.

A scorecard's key is the digest of everything that could move its figures, so what was measured once
is found again, and nothing is loaded when all of it is.
"""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from components import adapted, costs, manifest, scorecard
from components import base as bases
from components.evaluate import (
    answered,
    applied,
    built_in,
    guard,
    guards,
    kinds,
    logged,
    posing,
    task,
)
from components.evaluate.applied import NotAppliedError
from components.evaluate.guard import Guard
from components.evaluate.measurement import FEW_SHOT, Measurement, measurements
from components.evaluate.settings import EvaluationSettings
from components.evaluate.stopwatch import Stopwatch
from components.schema import Json, Progress
from components.scorecard import HOLDOUT, PRODUCTION, Metric, Sample

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from components.evaluate.blocked import Blocked

Folders: TypeAlias = dict[str, dict[str, Path]]
"""Scorecard folders by model, and then by task."""


@dataclass(frozen=True, slots=True)
class Askable:
    """A task that is ready: its metrics, and how a model is asked all of it."""

    metrics: Mapping[str, Metric]
    ask: "Callable[[LM], list[Sample]]"


def folders(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
) -> Folders:
    """Name each model's scorecard folders, whether they are there yet or not; see ``evaluate``."""
    return _by_model(measurements(snapshot, base, models, root, settings))


def evaluate(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
    *,
    report: Callable[[Progress], None],
    now: datetime,
) -> Folders:
    """Measure each model on each task, unless it was measured before.

    Args:
        snapshot: A finished snapshot folder.
        base: The base model's folder.
        models: Adapter folders by the role they play; ``None`` is the base alone.
        root: Where scorecard folders go, each named by its key.
        settings: How the models are asked.
        report: Called before the first batch and after each, with the model's role as the stage.
        now: When this evaluation was asked for (UTC).

    Returns:
        Each model's finished scorecard folders, one a task; the holdout's is ``HOLDOUT``.

    Raises:
        FileNotFoundError: The snapshot or an adapter is unfinished.
        ValueError: The holdout is empty, or an adapter is not the one its manifest names.
        GuardError: A task can't be asked, or not of its documents; found before a model is loaded.
        NotAppliedError: An adapter is for another base, or changes nothing; nothing is scored.
        TemplateChangedError: An adapter was trained on prompts that were written differently.
    """
    wanted = measurements(snapshot, base, models, root, settings)
    missing = [m for m in wanted if not manifest.is_finished(m.folder)]
    for adapter in dict.fromkeys(one.adapter for one in missing if one.adapter is not None):
        applied.require_sound(adapter)
    names = {one.task for one in missing}
    ready = guard.prepare([one for one in settings.tasks if guards.name(one) in names])
    if not missing:
        return _by_model(wanted)
    model, tokenizer = bases.load(base, settings.precision, for_training=False)
    length = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    askable = _askable(snapshot, tokenizer, settings, ready, length)
    askable |= {
        name: Askable(built_in.METRICS[name], built_in.asking(name, snapshot, tokenizer, length))
        for name in settings.built_in
        if name in names
    }
    bare = applied.probe(model, tokenizer)
    for adapter, group in groupby(missing, key=lambda one: one.adapter):
        with _adapted(model, adapter) as worn:
            if adapter is not None:
                applied.require_applied(cast("PeftModel", worn), adapter, tokenizer, bare)
            _measure(group, askable, worn, tokenizer, settings, report=report, now=now)
    return _by_model(wanted)


def _measure(
    wanted: Iterable[Measurement],
    askable: Mapping[str, Askable],
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    settings: EvaluationSettings,
    *,
    report: Callable[[Progress], None],
    now: datetime,
) -> None:
    """Measure one model on its tasks, and write a scorecard of each."""
    from components.evaluate import threads  # noqa: PLC0415 - loads torch
    from components.evaluate.blocked import Blocked  # noqa: PLC0415 - as above

    blocks = Blocked(model)
    for one in wanted:
        asked, watch = askable[one.asked], Stopwatch(report)
        with threads.chosen(model.device):
            samples = asked.ask(_answerer(one, blocks, tokenizer, settings, watch))
            body = one.body | _speed(one, model, tokenizer, samples, watch.seconds)
        scorecard.write(one.folder, samples, asked.metrics, body=body, now=now)


def _askable(
    snapshot: Path,
    tokenizer: "PreTrainedTokenizerBase",
    settings: EvaluationSettings,
    ready: Mapping[str, Guard],
    length: int,
) -> dict[str, Askable]:
    """Say of each task how a model is asked it; ``length`` bounds prompt and answer in tokens."""
    found = {
        name: Askable({one.metric: one.told}, partial(answered.run, guard=one))
        for name, one in ready.items()
    }
    for name in (HOLDOUT, FEW_SHOT) if settings.num_fewshot else (HOLDOUT,):
        holdout = task.read(
            snapshot,
            tokenizer,
            settings.kind,
            num_fewshot=settings.num_fewshot if name == FEW_SHOT else 0,
            room=length - settings.max_new_tokens,
        )
        ask = partial(
            posing.run,
            holdout=holdout,
            max_new_tokens=settings.max_new_tokens,
            end=str(tokenizer.eos_token or ""),
        )
        found[name] = Askable(kinds.METRICS[holdout.answers.kind], ask)
        said = logged.read(snapshot, holdout.answers.kind) if name == HOLDOUT else None
        if said is not None:
            read = partial(logged.run, holdout, said, settings.max_new_tokens)
            found[PRODUCTION] = Askable(found[name].metrics, lambda _, read=read: read())
    return found


def _speed(
    one: Measurement,
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    samples: list[Sample],
    seconds: float,
) -> dict[str, Json]:
    """Say how fast the workload's own requests were answered, which is never twice the same.

    So it is no part of the scorecard's key.
    """
    if one.task != HOLDOUT or one.model == PRODUCTION:
        return {}
    from components.evaluate import speed  # noqa: PLC0415 - loads torch

    return {costs.SPEED: asdict(speed.measure(model, tokenizer, samples, seconds))}


def _by_model(measurements: list[Measurement]) -> Folders:
    found: Folders = {}
    for one in measurements:
        found.setdefault(one.model, {})[one.task] = one.folder
    return found


@contextmanager
def _adapted(
    model: "PreTrainedModel", adapter: Path | None
) -> "Generator[PreTrainedModel | PeftModel]":
    """Put an adapter on the base, and take it off again."""
    if adapter is None:
        yield model
        return
    try:
        wrapped = adapted.put_on(model, adapter)
    except (UserWarning, ValueError) as error:
        raise NotAppliedError(f"evaluating {adapter}: it does not fit the base: {error}") from error
    try:
        yield wrapped
    finally:
        adapted.take_off(wrapped)


def _answerer(
    one: Measurement,
    blocks: "Blocked",
    tokenizer: "PreTrainedTokenizerBase",
    settings: EvaluationSettings,
    report: Callable[[Progress], None],
) -> "LM":
    from components.evaluate.answerer import Answerer  # noqa: PLC0415 - loads torch

    stage = one.model if one.task == HOLDOUT else f"{one.model} on {one.task}"
    return Answerer(blocks, tokenizer, settings.batch_size, stage=stage, report=report)  # pyright: ignore[reportAbstractUsage] - HFLM is not
