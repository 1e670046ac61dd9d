"""Measure models on tasks with lm-eval: one base in memory, adapters by turns.

A scorecard's key is the digest of everything that could move its figures, so what was measured once
is found again, and nothing is loaded when all of it is.
"""

import platform
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from components import adapted, manifest, prompt, rendering, scorecard
from components import base as bases
from components.evaluate import metric, task
from components.evaluate.settings import EvaluationSettings
from components.evaluate.task import Holdout
from components.schema import Json, Progress
from components.scorecard import HOLDOUT, Sample

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("lm_eval", "torch", "transformers", "tokenizers", "peft", "bitsandbytes")
"""Those whose version may move a score."""

WEIGHTS = "adapter_model.safetensors"

Files: TypeAlias = dict[str, Json]

Folders: TypeAlias = dict[str, dict[str, Path]]
"""Scorecard folders by model, and then by task."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on one task: where its scorecard goes and what the scorecard will say it is of."""

    model: str
    task: str
    adapter: Path | None
    folder: Path
    body: dict[str, Json]


def folders(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
) -> Folders:
    """Name each model's scorecard folders, whether they are there yet or not; see ``evaluate``."""
    return _by_model(_measurements(snapshot, base, models, root, settings))


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
        TemplateChangedError: An adapter was trained on prompts that were written differently.
    """
    measurements = _measurements(snapshot, base, models, root, settings)
    missing = [m for m in measurements if not manifest.is_finished(m.folder)]
    for readable in (False, True):
        alike = [one for one in missing if _wants_readable(one.adapter, settings) is readable]
        if not alike:
            continue
        model, tokenizer = bases.load(
            base, settings.precision, for_training=False, readable=readable
        )
        holdout = task.read(snapshot, tokenizer)
        for one in alike:
            with _adapted(model, one.adapter) as ready:
                samples = _measure(one, ready, tokenizer, holdout, settings, report)
            scorecard.write(one.folder, samples, metric.METRICS, body=one.body, now=now)
    return _by_model(measurements)


def _by_model(measurements: list[Measurement]) -> Folders:
    found: Folders = {}
    for one in measurements:
        found.setdefault(one.model, {})[one.task] = one.folder
    return found


def _wants_readable(adapter: Path | None, settings: EvaluationSettings) -> bool:
    is_quantized = settings.precision not in ("bf16", "fp32")
    return is_quantized and adapter is not None and adapted.reads_the_base(adapter)


def _measurements(
    snapshot: Path,
    base: Path,
    models: Mapping[str, Path | None],
    root: Path,
    settings: EvaluationSettings,
) -> list[Measurement]:
    template = rendering.template_hash(base)
    conditions = _conditions(manifest.read_untouched(snapshot), template, settings)
    base_hash = bases.content_hash(base)
    return [
        _measurement(model, adapter, base_hash, conditions, root)
        for model, adapter in models.items()
    ]


def _conditions(
    snapshot: Mapping[str, Json], template: str, settings: EvaluationSettings
) -> dict[str, Json]:
    """Gather what must be equal for two scorecards to be compared."""
    return {
        "task": task.name(str(snapshot["workload"])),
        "task_version": task.VERSION,
        "holdout_version": snapshot["holdout_version"],
        "prompt_format": prompt.FORMAT,
        rendering.TEMPLATE: template,
        "settings": settings.model_dump(mode="json"),
        "machine": _machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _machine() -> str:
    """Name what computes, without loading torch: a GPU rounds otherwise than a CPU."""
    gpu = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))
    return "gpu" if gpu else f"cpu {platform.machine()}"


def _measurement(
    model: str, adapter: Path | None, base_hash: str, conditions: dict[str, Json], root: Path
) -> Measurement:
    record = None if adapter is None else manifest.read_untouched(adapter)
    if record is not None:
        template = str(conditions[rendering.TEMPLATE])
        rendering.require_same(record.get(rendering.TEMPLATE), template, f"evaluating {adapter}")
    body: dict[str, Json] = {
        "base": base_hash,
        "adapter": None if record is None else record["key"],
        "adapter_weights": None if record is None else cast("Files", record["files"])[WEIGHTS],
        "task": HOLDOUT,
        "conditions": conditions,
    }
    return Measurement(model, HOLDOUT, adapter, root / manifest.digest(body), body)


@contextmanager
def _adapted(
    model: "PreTrainedModel", adapter: Path | None
) -> "Generator[PreTrainedModel | PeftModel]":
    """Put an adapter on the base, and take it off again."""
    if adapter is None:
        yield model
        return
    wrapped = adapted.put_on(model, adapter)
    try:
        yield wrapped
    finally:
        adapted.take_off(wrapped)


def _measure(
    one: Measurement,
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    holdout: Holdout,
    settings: EvaluationSettings,
    report: Callable[[Progress], None],
) -> list[Sample]:
    from components.evaluate.answerer import Answerer  # noqa: PLC0415 - loads torch

    lm = Answerer(model, tokenizer, settings.batch_size, stage=one.model, report=report)  # pyright: ignore[reportAbstractUsage] - HFLM is not
    return task.run(lm, holdout, settings.max_new_tokens)
