"""Measure models on tasks with lm-eval: one base in memory, adapters by turns.

A scorecard's key is the digest of everything that could move its figures, so what was measured once
is found again, and nothing is loaded when all of it is.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from components import costs, scorecard
from components.evaluate import baselines, guard_runs, guards, holdout_task, lm_eval_tasks, metrics
from components.evaluate.built_in import task_registry
from components.evaluate.engines import adapter_checks
from components.evaluate.engines.protocol import Engine, LoadedAdapter, Stopwatch, TimeMark
from components.evaluate.guard_runs import PreparedGuard
from components.evaluate.score_conditions import Measurement, measurements
from components.evaluate.settings import EvaluationSettings
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
from components.store import manifest

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase


ScorecardFolders: TypeAlias = dict[str, dict[str, Path]]
"""Scorecard folders by model, and then by task."""


@dataclass(frozen=True, slots=True)
class ReadyTask:
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
) -> ScorecardFolders:
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
) -> ScorecardFolders:
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
        adapter_checks.require_sound(adapter)
    names = {one.task for one in missing}
    ready = guard_runs.prepare_guards(
        [one for one in settings.tasks if guards.guard_name(one) in names]
    )
    if not missing:
        return _by_model(wanted)
    with load_engine(base, settings, adapters) as engine:
        askable = _ready_tasks(snapshot, engine, settings, ready, side)
        askable |= {
            name: ReadyTask(
                task_registry.BUILT_IN_METRICS[name],
                task_registry.prepare_built_in(name, snapshot, engine.tokenizer, engine.length),
            )
            for name in settings.built_in
            if name in names
        }
        for adapter, group in groupby(missing, key=lambda one: one.adapter):
            with engine.wearing(adapter) as model:
                _measure_model(group, askable, model, engine.tokenizer, report=report, now=now)
    return _by_model(wanted)


def _measure_model(
    wanted: Iterable[Measurement],
    askable: Mapping[str, ReadyTask],
    model: LoadedAdapter,
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
            body = one.body | _measure_speed(one, model, tokenizer, samples, watch.answering)
        if asked.window is not None:
            body |= {WINDOW: asdict(asked.window)}
        scorecard.write(one.folder, samples, asked.metrics, body=body, now=now)


def _ready_tasks(
    snapshot: Path,
    engine: Engine,
    settings: EvaluationSettings,
    ready: Mapping[str, PreparedGuard],
    side: MeasuredSide,
) -> dict[str, ReadyTask]:
    """Say of each task how a model is asked it."""
    found = {
        name: ReadyTask({one.metric: one.told}, partial(guard_runs.run_guard, guard=one))
        for name, one in ready.items()
    }
    room = engine.length - settings.max_new_tokens
    for name in (side, FEW_SHOT) if settings.num_fewshot else (side,):
        holdout = holdout_task.read_side(
            snapshot,
            engine.tokenizer,
            settings.kind,
            side=side,
            num_fewshot=settings.num_fewshot if name == FEW_SHOT else 0,
            room=room,
        )
        ask = partial(
            lm_eval_tasks.evaluate_holdout,
            holdout=holdout,
            max_new_tokens=settings.max_new_tokens,
            end=str(engine.tokenizer.eos_token or ""),
        )
        window = holdout_task.count_too_long(holdout, engine.tokenizer, room)
        found[name] = ReadyTask(metrics.KIND_METRICS[holdout.answers.kind], ask, window)
        said = baselines.read_logged(snapshot, holdout.answers.kind) if name == HOLDOUT else None
        if said is not None:
            read = partial(baselines.score_logged, holdout, said, settings.max_new_tokens)
            found[PRODUCTION] = ReadyTask(found[name].metrics, lambda _, read=read: read())
        if name == side:
            for which in baselines.baseline_names(snapshot, holdout.answers.kind):
                learned = (snapshot / holdout_task.TRAIN_FILE, snapshot / f"{side}.parquet")
                read = partial(
                    baselines.score_baseline, which, holdout, *learned, settings.max_new_tokens
                )
                found[which] = ReadyTask(found[name].metrics, lambda _, read=read: read())
    return found


def _measure_speed(
    one: Measurement,
    model: LoadedAdapter,
    tokenizer: "PreTrainedTokenizerBase",
    samples: list[Sample],
    took: TimeMark,
) -> dict[str, Json]:
    """Say how fast the workload's own requests were answered, which is never twice the same.

    So it is no part of the scorecard's key.
    """
    if one.task != HOLDOUT or one.model in (PRODUCTION, *BASELINES):
        return {}
    from components.evaluate.engines import speed  # noqa: PLC0415 - loads torch

    return {costs.SPEED: asdict(speed.measure_speed(model.alone, tokenizer, samples, took))}


def _by_model(measurements: list[Measurement]) -> ScorecardFolders:
    found: ScorecardFolders = {}
    for one in measurements:
        found.setdefault(one.model, {})[one.task] = one.folder
    return found


@contextmanager
def load_engine(
    base: Path, settings: "EvaluationSettings", adapters: Sequence[Path]
) -> Generator[Engine]:
    """Load a base for an evaluation, in the engine that its settings name.

    Args:
        base: The base's folder.
        settings: How models are asked.
        adapters: All that will be put on it.

    Raises:
        EngineError: The engine is not installed, or can't do what is asked of it.
        NotAppliedError: An adapter is none that the engine can put on.
    """
    if settings.engine == "vllm":
        from components.evaluate.engines import vllm_engine  # noqa: PLC0415 - loads vLLM

        with vllm_engine.load_vllm(base, settings, adapters) as engine:
            yield engine
    else:
        from components.evaluate.engines.transformers_engine import TransformersEngine  # noqa: PLC0415 - torch

        yield TransformersEngine(base, settings)
