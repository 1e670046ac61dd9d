"""The specification of each kind of job, passed to its process as ``spec.json``."""

from pathlib import Path
from typing import ClassVar

from components.evaluate.settings import EvaluationSettings
from components.schema import Config
from components.scorecard import MeasuredSide
from components.train.checkpoints import StopCondition
from components.train.recipe import Recipe, Worker


class JobSpec(Config):
    """A job's specification; its ``kind`` selects what ``flows.jobs.entrypoint`` runs."""

    kind: ClassVar[str]


class TrainSpec(JobSpec):
    """Train one adapter on a snapshot into ``folder``."""

    kind = "train"

    snapshot: Path
    base: Path
    folder: Path
    recipe: Recipe

    base_content: str | None = None  # the hash of the base that the adapter's key names, if checked

    warm_start: Path | None = None  # the adapter to start from; unset: the base alone

    rows: Path | None = None  # where to write the outcome of the snapshot's rows

    stop: StopCondition | None = None  # where a candidate of a search stops before its end

    reached: Path | None = None  # where to write the progress reached


class CountedCandidate(Config):
    """A base and a recipe whose tokens are counted."""

    base: Path
    recipe: Recipe


class LengthsSpec(JobSpec):
    """Count the tokens of each step of candidates into a file."""

    kind = "lengths"

    snapshot: Path
    candidates: tuple[CountedCandidate, ...]
    counted: Path


class PlanSpec(JobSpec):
    """Plan a training into a file."""

    kind = "plan"

    snapshot: Path
    base: Path
    recipe: Recipe
    worker: Worker
    plan: Path


class CalibrateSpec(JobSpec):
    """Train for some seconds and keep nothing."""

    kind = "calibrate"

    snapshot: Path
    base: Path
    recipe: Recipe
    seconds: float


class EvaluateSpec(JobSpec):
    """Measure models of one base on each task; scorecards go below ``root``."""

    kind = "evaluate"

    snapshot: Path
    base: Path
    models: dict[str, Path | None]
    root: Path
    settings: EvaluationSettings
    side: MeasuredSide


KINDS: dict[str, type[JobSpec]] = {
    spec.kind: spec for spec in (TrainSpec, LengthsSpec, PlanSpec, CalibrateSpec, EvaluateSpec)
}


def read(kind: str, path: Path) -> JobSpec:
    """Read the specification of a job; ``KeyError`` for an unknown kind."""
    return KINDS[kind].model_validate_json(path.read_text())
