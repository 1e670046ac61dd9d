"""Scorecard keys: the digest of every condition that could change a score."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from components import canaries
from components.chat import answer_grammar, chat_templates
from components.evaluate import (
    baselines,
    guards,
    holdout_task,
    task_metrics,
    text_answers,
)
from components.evaluate.answer_space import answer_space_of
from components.evaluate.built_in import memorization, preference_accuracy
from components.evaluate.engines.adapter_checks import WEIGHTS_FILE, AdapterNotAppliedError
from components.evaluate.engines.protocol import EngineError
from components.evaluate.settings import BuiltIn, EngineName, EvaluationSettings, Kind
from components.models import device
from components.models.base import compute_type, content_hash, type_on_cpu
from components.models.device import Graphics, Half
from components.schema import Json, Precision
from components.scorecard import (
    BASELINES,
    CONSTRAINED,
    FEW_SHOT,
    HOLDOUT,
    PRODUCTION,
    RESCORED,
    MeasuredSide,
    ScorecardFolders,
)
from components.store import manifest
from components.store.manifest import AdapterManifest, SnapshotManifest

LIBRARIES = (
    "lm_eval",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "jsonschema-rs",
    "rouge-score",  # of the harness
    "scikit-learn",
)
"""Libraries whose version may change a score: they compute or parse answers or choose examples."""

ENGINE_VERSIONS: Mapping[EngineName, str] = {
    "transformers": manifest.version(1, first="3903462f074d7431"),
    "vllm": manifest.version(1, first="1197b4805ad2e4b4"),
}
"""The version of how an engine computes answers: raise an engine's number when its answers change
by more than rounding. ``tests/golden/answers.json`` has transformers' answers; no test has vLLM's,
since it requires a GPU."""


BUILT_IN_VERSIONS: dict[BuiltIn, str] = {
    "preferences": manifest.version(1, first="39191aa33d1e0cf9"),
    "canaries": manifest.version(1, first="a84b60d75131daa8"),
    "secrets": manifest.version(1, first="3a64c3283de21a0c"),
    "refusals": manifest.version(1, first="4b293c05f646ac10"),
}
"""The version of a task's prompts and scoring: raise its number when its file under
``tests/golden`` changes. Scores of two versions are not comparable."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on one task, with the folder and the manifest ``body`` of its scorecard."""

    model: str
    task: str
    adapter: Path | None
    folder: Path
    body: dict[str, Json]

    @property
    def ready_task(self) -> str:
        """The model's name if its holdout prompts are its own, otherwise the task's."""
        return self.model if self.model in (FEW_SHOT, PRODUCTION, *BASELINES) else self.task

    @property
    def is_rescored(self) -> bool:
        """Whether the model is asked a second time, in other batches (``RESCORED``)."""
        conditions = cast("Mapping[str, Json]", self.body["conditions"])
        return RESCORED in conditions and self.ready_task == self.task


def folders(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
    side: MeasuredSide = HOLDOUT,
) -> ScorecardFolders:
    """Return each model's scorecard folders, finished or not; see ``harness.evaluate``."""
    return by_model(measurements(snapshot, base, models, root, settings, side))


def by_model(planned: Sequence[Measurement]) -> ScorecardFolders:
    """Return the scorecard folders of measurements, by model and task."""
    folders: ScorecardFolders = {}
    for m in planned:
        folders.setdefault(m.model, {})[m.task] = m.folder
    return folders


def measurements(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
    side: MeasuredSide = HOLDOUT,
) -> list[Measurement]:
    """List all measurements, finished or not; see ``harness.evaluate``.

    The validation side has no guard or built-in tasks: those are tests, so choosing by them would
    be tuning on the test set.
    """
    conditions = {side: _side_conditions(snapshot, base, settings, side)}
    if side == HOLDOUT:
        conditions |= {
            guards.guard_name(guard): guards.guard_conditions(guard)
            | _answering_conditions(settings)
            for guard in settings.tasks
        }
        conditions |= {
            name: _built_in_conditions(name, snapshot, base) | _answering_conditions(settings)
            for name in settings.built_in
        }
    template, base_hash = chat_templates.template_hash(base), content_hash(base)
    planned = {model: (adapter, conditions) for model, adapter in models.items()}
    examples = {"examples": SnapshotManifest.read(snapshot).key}
    if settings.num_fewshot and None in models.values():
        shots = examples | {"num_fewshot": settings.num_fewshot}
        planned[FEW_SHOT] = (None, {side: conditions[side] | shots})
    kind = cast("Kind", conditions[side]["kind"])
    for name in baselines.baseline_names(snapshot, kind) if None in models.values() else ():
        own = examples | {"baseline": name, "baseline_version": baselines.BASELINE_VERSION}
        planned[name] = (None, {side: conditions[side] | own})
    logged = baselines.read_logged(snapshot, kind)
    # Only the holdout has production's answers.
    if logged is not None and None in models.values() and side == HOLDOUT:
        planned[PRODUCTION] = (None, {HOLDOUT: {**conditions[HOLDOUT], **logged.conditions}})
    return [
        measurement
        for model, (adapter, tasks) in planned.items()
        for measurement in _model_measurements(
            model, adapter, base, base_hash, template, tasks, root
        )
    ]


def built_in_problems(snapshot: Path, settings: EvaluationSettings) -> list[str]:
    """List the tasks that a snapshot can't measure, with the reason."""
    checks = {
        "preferences": preference_accuracy.preference_problem,
        "secrets": memorization.secret_problem,
    }
    problems = [checks[name](snapshot) for name in settings.built_in if name in checks]
    return [problem for problem in problems if problem is not None]


def document_counts(settings: EvaluationSettings, enough: int, snapshot: Path) -> dict[str, int]:
    """Count the documents of tasks other than the holdout; a guard task's up to ``enough``.

    What remains to be measured may be fewer: pairs of answers may exceed the base's window.

    Raises:
        ValueError: A guard task's documents can't be read.
    """
    rows = {
        "preferences": preference_accuracy.preference_rows,
        "secrets": memorization.secret_rows,
    }
    counted = {name: len(rows[name](snapshot)) for name in settings.built_in if name in rows}
    return task_metrics.document_counts(settings, enough) | counted


def independent_counts(settings: EvaluationSettings, enough: int, snapshot: Path) -> dict[str, int]:
    """Count the most documents that may be independent of each other, by task with a snapshot's."""
    counts = document_counts(settings, enough, snapshot)
    pairs = {"refusals": counts["refusals"] // 2} if "refusals" in counts else {}
    return counts | pairs


def _side_conditions(
    snapshot: Path, base: Path, settings: EvaluationSettings, side: MeasuredSide
) -> dict[str, Json]:
    record = SnapshotManifest.read_untouched(snapshot)
    answers = answer_space_of(snapshot, settings.kind)
    clusters = holdout_task.clusters_digest(snapshot, side)
    schemas = manifest.digest(holdout_task.response_schemas(snapshot, side))
    unusual: list[Json] = [*holdout_task.unusual_answers(snapshot, answers.kind, side)]
    return {
        "task": holdout_task.task_name(record.workload, side),
        "kind": answers.kind,
        "labels": [*answers.labels],
        "task_version": holdout_task.VERSION,
        f"{side}_version": holdout_task.side_version(record, side),
        "languages": holdout_task.keeps_language(snapshot),
        **({"clusters": clusters} if clusters else {}),
        "num_fewshot": 0,
        **chat_templates.conditions(base),
        "settings": settings.model_dump(
            mode="json",
            exclude={"tasks", "kind", "num_fewshot", "built_in", "judge", "constrained"},
        ),
        **({"words": text_answers.WORDS_VERSION} if answers.kind == "text" else {}),
        **({"json": schemas} if answers.kind == "json" else {}),
        **({"thoughts": "left out"} if holdout_task.has_thoughts(snapshot, side) else {}),
        **({"unusual_answers": unusual} if unusual else {}),
        **constraint_condition(answers, settings),
        **(_rescoring_condition(settings) if side == HOLDOUT else {}),
        **holdout_task.cluster_bounds(record, side),
        **_place_conditions(settings),
    }


def _answering_conditions(settings: EvaluationSettings) -> dict[str, Json]:
    return {
        "settings": settings.model_dump(mode="json", include={"engine", "precision", "batch_size"}),
        **_rescoring_condition(settings),
        **_place_conditions(settings),
    }


def _built_in_conditions(name: BuiltIn, snapshot: Path, base: Path) -> dict[str, Json]:
    return {
        "task": name,
        "task_version": BUILT_IN_VERSIONS[name],
        **chat_templates.conditions(base),
        **(
            {"pairs": preference_accuracy.preference_version(snapshot)}
            if name == "preferences"
            else {}
        ),
        **({"canaries": canaries.VERSION} if name == "canaries" else {}),
        **({"rows": memorization.secret_version(snapshot)} if name == "secrets" else {}),
    }


RESCORING_VERSION = 1  # raise it when other batches are made (``engines.lm_wrappers``)


def _rescoring_condition(settings: EvaluationSettings) -> dict[str, Json]:
    # No gate reads the validation side, so only what gates read is measured twice.
    is_exact = compute_name(_graphics(), settings.precision)["computed_in"] == "fp32"
    return {} if is_exact else {RESCORED: RESCORING_VERSION}


LIKELIHOODS_VERSION = 2  # in 16 bits: 1 was rounded to them by lm-eval


def _place_conditions(settings: EvaluationSettings) -> dict[str, Json]:
    place = compute_name(_graphics(), settings.precision)
    is_rounded = settings.engine == "transformers" and place["computed_in"] != "fp32"
    return {
        **place,
        **({"likelihoods": LIKELIHOODS_VERSION} if is_rounded else {}),
        "answering_version": ENGINE_VERSIONS[settings.engine],
        "libraries": {
            **{name: _library_version(name) for name in LIBRARIES},
            **require_installed(settings.engine),
        },
    }


def require_installed(engine: EngineName) -> dict[str, str]:
    """Return the versions of the libraries that only this engine uses.

    Raises:
        EngineError: It is not installed.
    """
    if engine != "vllm":
        return {}
    try:
        return {"vllm": version("vllm")}
    except PackageNotFoundError as error:
        raise EngineError(
            "evaluating with engine: vllm: the package vllm is not installed where this runs; "
            "infra/gpus.md says how, or evaluate with engine: transformers"
        ) from error


_graphics = lru_cache(maxsize=1)(device.computing_graphics)
_library_version = cache(version)  # a metadata file is parsed each time


def compute_name(gpus: Sequence[Graphics], precision: Precision) -> dict[str, Json]:
    """Return the conditions ``machine`` and ``computed_in``: rounding differs between devices.

    Of several GPUs the oldest decides, as when a model is loaded. ``precision`` is the type of
    the base's weights, which may differ from the compute type.
    """
    if not gpus:
        return {"machine": f"cpu {platform.machine()}", "computed_in": type_on_cpu(precision)}
    known = [gpu.capability for gpu in gpus if gpu.capability is not None]
    halves: set[Half] = {device.half_type(min(known))} if known else {"bf16", "fp16"}
    types = {compute_type(precision, half) for half in sorted(halves)}
    names = sorted({gpu.name for gpu in gpus})
    return {"machine": ", ".join(names), "computed_in": " or ".join(sorted(types))}


def constraint_condition(
    answers: task_metrics.AnswerSpace, settings: EvaluationSettings
) -> dict[str, Json]:
    """Return what stands in the conditions of constrained scorecards; empty where none is."""
    kinds = {"auto": {"tool_calls"}, "all": {"tool_calls", "classification"}}
    if settings.constrained is False or answers.kind not in kinds[settings.constrained]:
        return {}
    grammar = f"answer grammar {answer_grammar.VERSION}"
    return {CONSTRAINED: f"{grammar}, llguidance {version('llguidance')}"}


def _model_measurements(
    model: str,
    adapter: Path | None,
    base: Path,
    base_hash: str,
    template: str,
    conditions: Mapping[str, dict[str, Json]],
    root: Path,
) -> list[Measurement]:
    record = None if adapter is None else AdapterManifest.read_untouched(adapter)
    if adapter is not None and record is not None:
        if record.base != base_hash:
            raise AdapterNotAppliedError(
                f"evaluating {adapter}: it was trained on base {record.base or '(not recorded)'}, "
                f"and would be attached to {base_hash}; measure it on its own base"
            )
        chat_templates.require_same(record.prompt_template, template, f"evaluating {adapter}")
    without_model = model if model in (PRODUCTION, *BASELINES) else None
    model_body: dict[str, Json] = {
        "base": base_hash,
        "adapter": without_model if record is None else record.key,
        "adapter_weights": None if record is None else record.files[WEIGHTS_FILE],
    }
    listed: list[Measurement] = []
    for task, task_conditions in conditions.items():
        body: dict[str, Json] = {**model_body, "task": task, "conditions": task_conditions}
        listed.append(Measurement(model, task, adapter, root / manifest.digest(body), body))
    return listed
