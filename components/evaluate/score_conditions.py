"""Scorecard keys: the digest of every condition that could change a score."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias, cast

from components.chat import chat_templates, prompt
from components.evaluate import baselines, guards, holdout_task, metrics
from components.evaluate.built_in import task_registry
from components.evaluate.engines import protocol
from components.evaluate.engines.adapter_checks import WEIGHTS_FILE, require_base
from components.evaluate.judge import settings as judging
from components.evaluate.metrics import Kind
from components.evaluate.settings import EngineName, EvaluationSettings, GuardTask
from components.models import base as bases
from components.models import device
from components.models.base import Precision
from components.models.device import Graphics, Half
from components.schema import Json
from components.scorecard import (
    BASELINES,
    CLUSTER_CAP,
    FEW_SHOT,
    HOLDOUT,
    LARGEST_CLUSTER,
    PRODUCTION,
    MeasuredSide,
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
    "rouge-score",
    "scikit-learn",
)
"""Those whose version may move a score: they compute answers, read them, or choose examples."""

ENGINE_VERSIONS: Mapping[EngineName, str] = {
    "transformers": manifest.version(1, first="3903462f074d7431"),
    "vllm": manifest.version(1, first="1197b4805ad2e4b4"),
}
"""The version of how an engine computes answers: raise an engine's number when its answers change
by more than rounding. ``tests/golden/answers.json`` holds those of transformers; vLLM's no test
holds, since it wants a GPU."""

FileDigests: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on one task: where its scorecard goes and what the scorecard will say it is of."""

    model: str
    task: str
    adapter: Path | None
    folder: Path
    body: dict[str, Json]

    @property
    def asked(self) -> str:
        """What the model is asked: a task, or the holdout as this model alone is asked it."""
        return self.model if self.model in (FEW_SHOT, PRODUCTION, *BASELINES) else self.task


def measurements(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
    side: MeasuredSide = HOLDOUT,
) -> list[Measurement]:
    """List what is to be measured, done before or not; see ``harness.evaluate``.

    On the validation side that is its requests alone: a guard task or a built-in one is a test, and
    to choose by it would be to tune on it.
    """
    template = chat_templates.template_hash(base)
    conditions = {side: _side_conditions(snapshot, template, settings, side)}
    if side == HOLDOUT:
        conditions |= {
            guards.guard_name(one): _guard_conditions(one, settings) for one in settings.tasks
        }
        conditions |= {
            name: task_registry.built_in_conditions(name, snapshot, template)
            | _answering_conditions(settings)
            for name in settings.built_in
        }
    base_hash = bases.content_hash(base)
    asked = {model: (adapter, conditions) for model, adapter in models.items()}
    if settings.num_fewshot and None in models.values():
        asked[FEW_SHOT] = (None, {side: _with_examples(snapshot, conditions[side], settings)})
    kind = cast("Kind", conditions[side]["kind"])
    for name in baselines.baseline_names(snapshot, kind) if None in models.values() else ():
        asked[name] = (
            None,
            {side: conditions[side] | baselines.baseline_conditions(name, snapshot)},
        )
    said = baselines.read_logged(snapshot, kind)
    # What production answered is kept of the holdout only.
    if said is not None and None in models.values() and side == HOLDOUT:
        asked[PRODUCTION] = (None, {HOLDOUT: {**conditions[HOLDOUT], **said.conditions}})
    return [
        one
        for model, (adapter, wanted) in asked.items()
        for one in _model_measurements(model, adapter, base_hash, template, wanted, root)
    ]


def metric_names(settings: EvaluationSettings, kind: Kind | None) -> dict[str, list[str]]:
    """Name the metrics of every task; the holdout's of all kinds while its own is not known."""
    wanted: list[Kind] = [kind] if kind else list(metrics.KIND_METRICS)
    return {
        HOLDOUT: [name for one in wanted for name in metrics.KIND_METRICS[one]],
        **{guards.guard_name(one): [one.metric] for one in settings.tasks},
        **{name: [*task_registry.BUILT_IN_METRICS[name]] for name in settings.built_in},
        **({judging.JUDGE_TASK: [judging.JUDGE_METRIC]} if settings.judge else {}),
    }


def _side_conditions(
    snapshot: Path, template: str, settings: EvaluationSettings, side: MeasuredSide
) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a side to be compared."""
    record = SnapshotManifest.read_untouched(snapshot)
    answers = holdout_task.answer_space_of(snapshot, settings.kind)
    clusters = holdout_task.clusters_digest(snapshot, side)
    return {
        "task": holdout_task.task_name(record.workload, side),
        "kind": answers.kind,
        "labels": [*answers.labels],
        "task_version": holdout_task.VERSION,
        f"{side}_version": holdout_task.side_version(record, side),
        "languages": holdout_task.keeps_language(snapshot),
        **({"clusters": clusters} if clusters else {}),
        "num_fewshot": 0,
        "prompt_format": prompt.FORMAT,
        chat_templates.TEMPLATE: template,
        "settings": settings.model_dump(
            mode="json", exclude={"tasks", "kind", "num_fewshot", "built_in", "judge"}
        ),
        **({LARGEST_CLUSTER: record.largest_cluster} if record.largest_cluster is not None else {}),
        **(_length_cap(record) if side == HOLDOUT else {}),
        **_place_conditions(settings),
    }


def _length_cap(record: SnapshotManifest) -> dict[str, Json]:
    cap = (record.config or {}).get(CLUSTER_CAP)
    return {} if cap is None else {CLUSTER_CAP: cap}


def _with_examples(
    snapshot: Path, conditions: dict[str, Json], settings: EvaluationSettings
) -> dict[str, Json]:
    """Say that examples stand before each request, and from which snapshot they were taken."""
    key = SnapshotManifest.read(snapshot).key
    return {**conditions, "num_fewshot": settings.num_fewshot, "examples": key}


def _guard_conditions(one: GuardTask, settings: EvaluationSettings) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a guard task to be compared."""
    return guards.guard_conditions(one) | _answering_conditions(settings)


def _answering_conditions(settings: EvaluationSettings) -> dict[str, Json]:
    """Say what answers a task beside the holdout, and how."""
    return {
        "settings": settings.model_dump(mode="json", include={"engine", "precision", "batch_size"}),
        **_place_conditions(settings),
    }


def _place_conditions(settings: EvaluationSettings) -> dict[str, Json]:
    return {
        **compute_name(_graphics(), settings.precision),
        "answering_version": ENGINE_VERSIONS[settings.engine],
        "libraries": {
            **{name: version(name) for name in LIBRARIES},
            **protocol.require_installed(settings.engine),
        },
    }


_graphics = lru_cache(maxsize=1)(device.graphics)


def compute_name(gpus: Sequence[Graphics], precision: Precision) -> dict[str, Json]:
    """Name what computes, and in which numbers: GPUs round otherwise than CPUs and than each other.

    Args:
        gpus: Those of the machine; the oldest decides, as where a model is loaded.
        precision: What the base's weights are held in, which is not always what computes.
    """
    if not gpus:
        kind = bases.compute_type(precision, on_cpu=True, half="bf16")
        return {"machine": f"cpu {platform.machine()}", "computed_in": kind}
    known = [one.capability for one in gpus if one.capability is not None]
    halves: set[Half] = {device.half_type(min(known))} if known else {"bf16", "fp16"}
    kinds_of = {bases.compute_type(precision, on_cpu=False, half=half) for half in sorted(halves)}
    names = sorted({one.name for one in gpus})
    return {"machine": ", ".join(names), "computed_in": " or ".join(sorted(kinds_of))}


def _model_measurements(
    model: str,
    adapter: Path | None,
    base_hash: str,
    template: str,
    conditions: Mapping[str, dict[str, Json]],
    root: Path,
) -> list[Measurement]:
    """Name the measurements of one model, one a task."""
    record = None if adapter is None else AdapterManifest.read_untouched(adapter)
    if adapter is not None and record is not None:
        require_base(adapter, record, base_hash)
        chat_templates.require_same(record.prompt_template, template, f"evaluating {adapter}")
    bare = model if model in (PRODUCTION, *BASELINES) else None
    who: dict[str, Json] = {
        "base": base_hash,
        "adapter": bare if record is None else record.key,
        "adapter_weights": None if record is None else record.files[WEIGHTS_FILE],
    }
    found: list[Measurement] = []
    for name, wanted in conditions.items():
        body: dict[str, Json] = {**who, "task": name, "conditions": wanted}
        found.append(Measurement(model, name, adapter, root / manifest.digest(body), body))
    return found
