"""Measure models on tasks with lm-eval: one base in memory, one adapter at a time.

A scorecard's key is the digest of everything that could change its figures, so finished
measurements are skipped, and nothing is loaded if all are finished.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from components import costs, scorecard
from components.chat.answer_start import end_of_answers
from components.evaluate import (
    baselines,
    guard_runs,
    guards,
    holdout_task,
    lm_eval_tasks,
    task_metrics,
)
from components.evaluate.built_in import memorization, preference_accuracy, refusal_behaviour
from components.evaluate.constraint import AnswerConstraint
from components.evaluate.engines import adapter_checks
from components.evaluate.engines.protocol import Engine, LoadedAdapter, Stopwatch, TimeMark
from components.evaluate.guard_runs import PreparedGuard
from components.evaluate.score_conditions import (
    Measurement,
    by_model,
    constraint_condition,
    measurements,
)
from components.evaluate.settings import BuiltIn, EvaluationSettings
from components.schema import Json, Progress
from components.scorecard import (
    BASELINES,
    CONSTRAINED,
    FEW_SHOT,
    HOLDOUT,
    PRODUCTION,
    VALIDATION,
    WINDOW,
    MeasuredSide,
    Metric,
    Sample,
    ScorecardFolders,
    Window,
)
from components.store import output_folders

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ReadyTask:
    """A prepared task: its metrics, and a function that runs a model on it.

    ``is_chat``: its prompts are rendered by the base's chat template. ``window`` counts the prompts
    that don't fit, and ``constrain`` makes what keeps answers within their tools, both for the
    workload's own requests.
    """

    metrics: Mapping[str, Metric]
    run: "Callable[[LM], list[Sample]]"
    is_chat: bool = True
    window: Window | None = None
    constrain: Callable[[], AnswerConstraint] | None = None


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
    """Measure each model on each task, skipping finished measurements; return the folders.

    ``models`` are adapter folders by role, ``None`` for the base alone. The validation ``side``
    is measured without other tasks, the holdout with all of them. ``report`` is called before
    the first batch and after each, with the model's role as the stage. Scorecard folders in
    ``root`` are named by their keys.

    Raises:
        FileNotFoundError: The snapshot or an adapter is unfinished.
        ValueError: The side is empty, or an adapter's weights differ from its manifest.
        GuardError: A guard task or its documents are invalid; raised before a model is loaded.
        AdapterNotAppliedError: An adapter is for another base or has no effect; nothing is scored.
        TemplateChangedError: An adapter was trained with another prompt template.
        SourceGoneError: The snapshot was deleted meanwhile, as by an erasure.
    """
    sources = output_folders.count_copies([snapshot])
    planned = measurements(snapshot, base, models, root, settings, side)
    missing = [m for m in planned if not output_folders.fetch(m.folder)]
    adapters = list(dict.fromkeys(m.adapter for m in missing if m.adapter is not None))
    for adapter in adapters:
        adapter_checks.require_sound(adapter)
    names = {m.task for m in missing}
    guards_by_name = guard_runs.prepare_guards(
        [guard for guard in settings.tasks if guards.guard_name(guard) in names]
    )
    if not missing:
        return by_model(planned)
    with load_engine(base, settings, adapters) as engine:
        ready = _ready_tasks(snapshot, engine, settings, guards_by_name, side)
        ready |= {
            name: ReadyTask(
                task_metrics.BUILT_IN_METRICS[name],
                _prepare_built_in(name, snapshot, engine.tokenizer, engine.length),
            )
            for name in settings.built_in
            if name in names
        }
        for adapter, group in groupby(missing, key=lambda m: m.adapter):
            with engine.use_adapter(adapter) as model:
                _measure_model(
                    group,
                    ready,
                    model,
                    engine.tokenizer,
                    settings,
                    finishing=partial(output_folders.while_kept, sources),
                    report=report,
                    now=now,
                )
    return by_model(planned)


def _measure_model(
    group: Iterable[Measurement],
    ready: Mapping[str, ReadyTask],
    model: LoadedAdapter,
    tokenizer: "PreTrainedTokenizerBase",
    settings: EvaluationSettings,
    *,
    finishing: Callable[[Path], AbstractContextManager[None]],
    report: Callable[[Progress], None],
    now: datetime,
) -> None:
    """Measure one model on its tasks, and write a scorecard for each."""
    for m in group:
        task, watch = ready[m.ready_task], Stopwatch(report)
        stage = m.model if m.task in (HOLDOUT, VALIDATION) else f"{m.model} on {m.task}"
        keeping = task.constrain() if task.constrain else None
        with model.answering(stage, watch, keeping, is_chat=task.is_chat) as lm:
            samples = task.run(lm)
            body = m.body | _measure_speed(m, model, tokenizer, samples, watch.answering)
        if task.window is not None:
            body |= {WINDOW: asdict(task.window)}
        if keeping is not None:
            body |= {CONSTRAINED: asdict(keeping.outcome(samples))}
        if m.is_rescored:
            again = _answer_again(task, model, settings.batch_size, f"{stage}, again", report)
            samples = [replace(each, rescored=again[each.doc_id].scores) for each in samples]
        with finishing(m.folder):
            scorecard.write(m.folder, samples, task.metrics, body=body, now=now)


def _answer_again(
    task: ReadyTask,
    model: LoadedAdapter,
    batch_size: int,
    stage: str,
    report: Callable[[Progress], None],
) -> dict[int, Sample]:
    """Run a task a second time, in other batches; return its samples by ``doc_id``."""
    from components.evaluate.engines.lm_wrappers import OtherBatches  # noqa: PLC0415 - torch

    def progress(done: int, total: int) -> None:
        report(Progress(stage, done, total, "requests"))

    keeping = task.constrain() if task.constrain else None
    with model.answering(stage, lambda _: None, keeping, is_chat=task.is_chat) as lm:
        samples = task.run(OtherBatches(lm, batch_size, progress))
    return {sample.doc_id: sample for sample in samples}


def _ready_tasks(
    snapshot: Path,
    engine: Engine,
    settings: EvaluationSettings,
    guards_by_name: Mapping[str, PreparedGuard],
    side: MeasuredSide,
) -> dict[str, ReadyTask]:
    ready = {
        name: ReadyTask(
            {guard.metric: guard.meaning},
            partial(guard_runs.run_guard, guard=guard),
            is_chat=False,
        )
        for name, guard in guards_by_name.items()
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
        run = partial(
            lm_eval_tasks.evaluate_holdout,
            holdout=holdout,
            max_new_tokens=settings.max_new_tokens,
            end=end_of_answers(engine.tokenizer),
        )
        window = holdout_task.count_too_long(
            holdout, engine.tokenizer, room, settings.max_new_tokens
        )
        constrain = partial(AnswerConstraint, holdout)
        ready[name] = ReadyTask(
            holdout.answers.metrics,
            run,
            window=window,
            constrain=constrain if constraint_condition(holdout.answers, settings) else None,
        )
        logged = baselines.read_logged(snapshot, holdout.answers.kind) if name == HOLDOUT else None
        if logged is not None:
            score = partial(baselines.score_logged, holdout, logged, settings.max_new_tokens)
            ready[PRODUCTION] = ReadyTask(ready[name].metrics, lambda _, score=score: score())
        if name == side:
            for baseline in baselines.baseline_names(snapshot, holdout.answers.kind):
                files = (snapshot / holdout_task.TRAIN_FILE, snapshot / f"{side}.parquet")
                score = partial(
                    baselines.score_baseline, baseline, holdout, *files, settings.max_new_tokens
                )
                ready[baseline] = ReadyTask(ready[name].metrics, lambda _, score=score: score())
    return ready


def _prepare_built_in(
    name: BuiltIn, snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> "Callable[[LM], list[Sample]]":
    """Return a function that runs a model on a task; ``length`` is its context window in tokens."""
    match name:
        case "preferences":
            documents = preference_accuracy.preference_documents(snapshot, tokenizer, length)
            return partial(preference_accuracy.run_preferences, documents=documents)
        case "canaries":
            documents = memorization.canary_documents(tokenizer)
            return partial(memorization.run_canaries, documents=documents)
        case "secrets":
            documents = memorization.secret_documents(snapshot, tokenizer)
            return partial(memorization.run_secrets, documents=documents)
        case "refusals":
            documents = refusal_behaviour.refusal_documents(tokenizer)
            return partial(refusal_behaviour.run_refusals, documents=documents)


def _measure_speed(
    measurement: Measurement,
    model: LoadedAdapter,
    tokenizer: "PreTrainedTokenizerBase",
    samples: list[Sample],
    elapsed: TimeMark,
) -> dict[str, Json]:
    # Differs from run to run, so it is not part of the scorecard's key.
    if measurement.task != HOLDOUT or measurement.model in (PRODUCTION, *BASELINES):
        return {}
    from components.evaluate.engines import speed  # noqa: PLC0415 - loads torch

    return {costs.SPEED: asdict(speed.measure_speed(model.alone, tokenizer, samples, elapsed))}


@contextmanager
def load_engine(
    base: Path, settings: "EvaluationSettings", adapters: Sequence[Path]
) -> Generator[Engine]:
    """Load a base for an evaluation with these adapters, in the engine of its settings.

    Raises:
        EngineError: The engine is not installed, or does not support the base.
        AdapterNotAppliedError: The engine does not support an adapter.
    """
    if settings.engine == "vllm":
        from components.evaluate.engines import vllm_engine  # noqa: PLC0415 - loads vLLM

        with vllm_engine.load_vllm(base, settings, adapters) as engine:
            yield engine
    else:
        from components.evaluate.engines.transformers_engine import TransformersEngine  # noqa: PLC0415 - torch

        yield TransformersEngine(base, settings)
