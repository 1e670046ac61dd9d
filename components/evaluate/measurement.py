"""Name what is to be measured: by model and task, with all that could move a score.

A scorecard's key is the digest of it, so what was measured once is found again.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias, cast

from components import base as bases
from components import hardware, machine, manifest, prompt, rendering
from components.base import Precision
from components.evaluate import baselines, built_in, engines, guards, kinds, logged, task
from components.evaluate.applied import WEIGHTS, require_base
from components.evaluate.judging import settings as judging
from components.evaluate.kinds import Kind
from components.evaluate.settings import EngineName, EvaluationSettings, GuardTask
from components.hardware import Half
from components.machine import Graphics
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

ANSWERING: Mapping[EngineName, str] = {
    "transformers": manifest.version(1, first="3903462f074d7431"),
    "vllm": manifest.version(1, first="1197b4805ad2e4b4"),
}
"""The version of how an engine computes answers: raise an engine's number when its answers change
by more than rounding. ``tests/golden/answers.json`` holds those of transformers; vLLM's no test
holds, since it wants a GPU."""

Files: TypeAlias = dict[str, Json]


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
    template = rendering.template_hash(base)
    conditions = {side: _of_side(snapshot, template, settings, side)}
    if side == HOLDOUT:
        conditions |= {guards.name(one): _of_guard(one, settings) for one in settings.tasks}
        conditions |= {
            name: built_in.conditions(name, snapshot, template) | _answered(settings)
            for name in settings.built_in
        }
    base_hash = bases.content_hash(base)
    asked = {model: (adapter, conditions) for model, adapter in models.items()}
    if settings.num_fewshot and None in models.values():
        asked[FEW_SHOT] = (None, {side: _with_examples(snapshot, conditions[side], settings)})
    kind = cast("Kind", conditions[side]["kind"])
    for name in baselines.names(snapshot, kind) if None in models.values() else ():
        asked[name] = (None, {side: conditions[side] | baselines.conditions(name, snapshot)})
    said = logged.read(snapshot, kind)
    # What production answered is kept of the holdout only.
    if said is not None and None in models.values() and side == HOLDOUT:
        asked[PRODUCTION] = (None, {HOLDOUT: {**conditions[HOLDOUT], **said.conditions}})
    return [
        one
        for model, (adapter, wanted) in asked.items()
        for one in _of_model(model, adapter, base_hash, template, wanted, root)
    ]


def metrics(settings: EvaluationSettings, kind: Kind | None) -> dict[str, list[str]]:
    """Name the metrics of every task; the holdout's of all kinds while its own is not known."""
    wanted: list[Kind] = [kind] if kind else list(kinds.METRICS)
    return {
        HOLDOUT: [name for one in wanted for name in kinds.METRICS[one]],
        **{guards.name(one): [one.metric] for one in settings.tasks},
        **{name: [*built_in.METRICS[name]] for name in settings.built_in},
        **({judging.TASK: [judging.METRIC]} if settings.judge else {}),
    }


def _of_side(
    snapshot: Path, template: str, settings: EvaluationSettings, side: MeasuredSide
) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a side to be compared."""
    record = manifest.read_untouched(snapshot)
    answers = task.answers_of(snapshot, settings.kind)
    clusters = task.clusters_digest(snapshot, side)
    return {
        "task": task.name(str(record["workload"]), side),
        "kind": answers.kind,
        "labels": [*answers.labels],
        "task_version": task.VERSION,
        f"{side}_version": task.version(record, side),
        "languages": task.keeps_language(snapshot),
        **({"clusters": clusters} if clusters else {}),
        "num_fewshot": 0,
        "prompt_format": prompt.FORMAT,
        rendering.TEMPLATE: template,
        "settings": settings.model_dump(
            mode="json", exclude={"tasks", "kind", "num_fewshot", "built_in", "judge"}
        ),
        **{name: record[name] for name in (LARGEST_CLUSTER,) if name in record},
        **(_cap(record) if side == HOLDOUT else {}),
        **_place(settings),
    }


def _cap(record: Mapping[str, Json]) -> dict[str, Json]:
    curated = record.get("config")
    cap = curated.get(CLUSTER_CAP) if isinstance(curated, dict) else None
    return {} if cap is None else {CLUSTER_CAP: cap}


def _with_examples(
    snapshot: Path, conditions: dict[str, Json], settings: EvaluationSettings
) -> dict[str, Json]:
    """Say that examples stand before each request, and from which snapshot they were taken."""
    key = manifest.read(snapshot)["key"]
    return {**conditions, "num_fewshot": settings.num_fewshot, "examples": key}


def _of_guard(one: GuardTask, settings: EvaluationSettings) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a guard task to be compared."""
    return guards.conditions(one) | _answered(settings)


def _answered(settings: EvaluationSettings) -> dict[str, Json]:
    """Say what answers a task beside the holdout, and how."""
    return {
        "settings": settings.model_dump(mode="json", include={"engine", "precision", "batch_size"}),
        **_place(settings),
    }


def _place(settings: EvaluationSettings) -> dict[str, Json]:
    return {
        **computer(_graphics(), settings.precision),
        "answering_version": ANSWERING[settings.engine],
        "libraries": {
            **{name: version(name) for name in LIBRARIES},
            **engines.require_installed(settings.engine),
        },
    }


_graphics = lru_cache(maxsize=1)(machine.graphics)


def computer(gpus: Sequence[Graphics], precision: Precision) -> dict[str, Json]:
    """Name what computes, and in which numbers: GPUs round otherwise than CPUs and than each other.

    Args:
        gpus: Those of the machine; the oldest decides, as where a model is loaded.
        precision: What the base's weights are held in, which is not always what computes.
    """
    if not gpus:
        kind = bases.computing(precision, on_cpu=True, half="bf16")
        return {"machine": f"cpu {platform.machine()}", "computed_in": kind}
    known = [one.capability for one in gpus if one.capability is not None]
    halves: set[Half] = {hardware.half_of(min(known))} if known else {"bf16", "fp16"}
    kinds_of = {bases.computing(precision, on_cpu=False, half=half) for half in sorted(halves)}
    names = sorted({one.name for one in gpus})
    return {"machine": ", ".join(names), "computed_in": " or ".join(sorted(kinds_of))}


def _of_model(
    model: str,
    adapter: Path | None,
    base_hash: str,
    template: str,
    conditions: Mapping[str, dict[str, Json]],
    root: Path,
) -> list[Measurement]:
    """Name the measurements of one model, one a task."""
    record = None if adapter is None else manifest.read_untouched(adapter)
    if adapter is not None and record is not None:
        require_base(adapter, record, base_hash)
        rendering.require_same(record.get(rendering.TEMPLATE), template, f"evaluating {adapter}")
    bare = model if model in (PRODUCTION, *BASELINES) else None
    who: dict[str, Json] = {
        "base": base_hash,
        "adapter": bare if record is None else record["key"],
        "adapter_weights": None if record is None else cast("Files", record["files"])[WEIGHTS],
    }
    found: list[Measurement] = []
    for name, wanted in conditions.items():
        body: dict[str, Json] = {**who, "task": name, "conditions": wanted}
        found.append(Measurement(model, name, adapter, root / manifest.digest(body), body))
    return found
