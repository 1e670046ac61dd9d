"""Measure models on tasks with lm-eval: one base in memory, adapters by turns.

A scorecard's key is the digest of everything that could move its figures, so what was measured once
is found again, and nothing is loaded when all of it is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from components import costs, manifest, scorecard
from components.evaluate import (
    answered,
    applied,
    baselines,
    built_in,
    engine_loading,
    guard,
    guards,
    kinds,
    logged,
    posing,
    task,
)
from components.evaluate.engines import Engine, Worn
from components.evaluate.guard import Guard
from components.evaluate.measurement import Measurement, measurements
from components.evaluate.settings import EvaluationSettings
from components.evaluate.stopwatch import Mark, Stopwatch
from components.schema import Json, Progress
from components.scorecard import (
    BASELINES,
    FEW_SHOT,
    HOLDOUT,
    PRODUCTION,
    VALIDATION,
    WINDOW,
    MeasuredSide,
    Metric,
    Sample,
    Window,
)

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

Folders: TypeAlias = dict[str, dict[str, Path]]
"""Scorecard folders by model, and then by task."""


@dataclass(frozen=True, slots=True)
class Askable:
    """A task that is ready: its metrics, and how a model is asked all of it.

    ``window`` counts its prompts, where they are the workload's requests.
    """

    metrics: Mapping[str, Metric]
    ask: "Callable[[LM], list[Sample]]"
    window: Window | None = None


def folders(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
    side: MeasuredSide = HOLDOUT,
) -> Folders:
    """Name each model's scorecard folders, whether they are there yet or not; see ``evaluate``."""
    return _by_model(measurements(snapshot, base, models, root, settings, side))


def evaluate(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
    *,
    side: MeasuredSide = HOLDOUT,
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
        side: Which requests of the workload they are asked; those of the validation side alone, or
            the holdout's with all other tasks.
        report: Called before the first batch and after each, with the model's role as the stage.
        now: When this evaluation was asked for (UTC).

    Returns:
        Each model's finished scorecard folders, one a task; the side's has its name.

    Raises:
        FileNotFoundError: The snapshot or an adapter is unfinished.
        ValueError: The side is empty, or an adapter is not the one its manifest names.
        GuardError: A task can't be asked, or not of its documents; found before a model is loaded.
        NotAppliedError: An adapter is for another base, or changes nothing; nothing is scored.
        TemplateChangedError: An adapter was trained on prompts that were written differently.
    """
    wanted = measurements(snapshot, base, models, root, settings, side)
    missing = [m for m in wanted if not manifest.is_finished(m.folder)]
    adapters = list(dict.fromkeys(one.adapter for one in missing if one.adapter is not None))
    for adapter in adapters:
        applied.require_sound(adapter)
    names = {one.task for one in missing}
    ready = guard.prepare([one for one in settings.tasks if guards.name(one) in names])
    if not missing:
        return _by_model(wanted)
    with engine_loading.loaded(base, settings, adapters) as engine:
        askable = _askable(snapshot, engine, settings, ready, side)
        askable |= {
            name: Askable(
                built_in.METRICS[name],
                built_in.asking(name, snapshot, engine.tokenizer, engine.length),
            )
            for name in settings.built_in
            if name in names
        }
        for adapter, group in groupby(missing, key=lambda one: one.adapter):
            with engine.wearing(adapter) as model:
                _measure(group, askable, model, engine.tokenizer, report=report, now=now)
    return _by_model(wanted)


def _measure(
    wanted: Iterable[Measurement],
    askable: Mapping[str, Askable],
    model: Worn,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    report: Callable[[Progress], None],
    now: datetime,
) -> None:
    """Measure one model on its tasks, and write a scorecard of each."""
    for one in wanted:
        asked, watch = askable[one.asked], Stopwatch(report)
        stage = one.model if one.task in (HOLDOUT, VALIDATION) else f"{one.model} on {one.task}"
        with model.answering(stage, watch) as lm:
            samples = asked.ask(lm)
            body = one.body | _speed(one, model, tokenizer, samples, watch.answering)
        if asked.window is not None:
            body |= {WINDOW: asdict(asked.window)}
        scorecard.write(one.folder, samples, asked.metrics, body=body, now=now)


def _askable(
    snapshot: Path,
    engine: Engine,
    settings: EvaluationSettings,
    ready: Mapping[str, Guard],
    side: MeasuredSide,
) -> dict[str, Askable]:
    """Say of each task how a model is asked it."""
    found = {
        name: Askable({one.metric: one.told}, partial(answered.run, guard=one))
        for name, one in ready.items()
    }
    room = engine.length - settings.max_new_tokens
    for name in (side, FEW_SHOT) if settings.num_fewshot else (side,):
        holdout = task.read(
            snapshot,
            engine.tokenizer,
            settings.kind,
            side=side,
            num_fewshot=settings.num_fewshot if name == FEW_SHOT else 0,
            room=room,
        )
        ask = partial(
            posing.run,
            holdout=holdout,
            max_new_tokens=settings.max_new_tokens,
            end=str(engine.tokenizer.eos_token or ""),
        )
        window = task.window(holdout, engine.tokenizer, room)
        found[name] = Askable(kinds.METRICS[holdout.answers.kind], ask, window)
        said = logged.read(snapshot, holdout.answers.kind) if name == HOLDOUT else None
        if said is not None:
            read = partial(logged.run, holdout, said, settings.max_new_tokens)
            found[PRODUCTION] = Askable(found[name].metrics, lambda _, read=read: read())
        if name == side:
            for which in baselines.names(snapshot, holdout.answers.kind):
                learned = (snapshot / task.LEARNED, snapshot / f"{side}.parquet")
                read = partial(baselines.run, which, holdout, *learned, settings.max_new_tokens)
                found[which] = Askable(found[name].metrics, lambda _, read=read: read())
    return found


def _speed(
    one: Measurement,
    model: Worn,
    tokenizer: "PreTrainedTokenizerBase",
    samples: list[Sample],
    took: Mark,
) -> dict[str, Json]:
    """Say how fast the workload's own requests were answered, which is never twice the same.

    So it is no part of the scorecard's key.
    """
    if one.task != HOLDOUT or one.model in (PRODUCTION, *BASELINES):
        return {}
    from components.evaluate import speed  # noqa: PLC0415 - loads torch

    return {costs.SPEED: asdict(speed.measure(model.alone, tokenizer, samples, took))}


def _by_model(measurements: list[Measurement]) -> Folders:
    found: Folders = {}
    for one in measurements:
        found.setdefault(one.model, {})[one.task] = one.folder
    return found
