"""Read the one YAML file that describes a workload, or list every mistake in it."""

import glob
from pathlib import Path
from typing import Annotated

import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.runtime import flow_run
from pydantic import Field, StringConstraints, ValidationError, field_validator

from components.curate.rules import Rules
from components.evaluate.settings import EvaluationSettings
from components.gate.judge import Policy
from components.schema import Config
from components.train.recipe import Recipe

WorkloadId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ConfigError(ValueError):
    """A workload file that can't be used; ``mistakes`` holds a sentence for each reason."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        super().__init__("\n".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes]))


class Sources(Config):
    """Where the traffic lies: file names or globs, relative to the workload file."""

    logs: list[str] = Field(min_length=1)
    """Interactions, one five-key JSON object a line, plain or gzip'd."""

    feedback: list[str] = Field(default_factory=list)
    """What people thought of the answers, one JSON object a line, plain or gzip'd."""


class Workload(Config):
    """One kind of request: its traffic, and how its adapter is trained, measured and judged."""

    workload: WorkloadId
    """Rows of the logs with this ``workload_id`` belong here; names the registered model, too."""

    base: Path
    """Folder of the pretrained model (safetensors, config, tokenizer), relative to this file."""

    sources: Sources
    note: str = ""
    """Shown to whoever approves: what the numbers can't say about this traffic."""

    collect_schedule: str = "7 * * * *"
    """Cron line (UTC) of the scheduled ``collect`` runs."""

    turn_schedule: str = "30 2 * * *"
    """Cron line (UTC) of the scheduled turns."""

    curate: Rules = Field(default_factory=Rules)
    train: Recipe = Field(default_factory=Recipe)
    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings)
    gate: Policy = Field(default_factory=Policy)

    @field_validator("collect_schedule", "turn_schedule")
    @classmethod
    def _is_cron(cls, text: str) -> str:
        return CronSchedule(cron=text).cron

    def log_files(self) -> list[Path]:
        """Every log file that exists now, sorted."""
        return _matches(self.sources.logs)

    def feedback_files(self) -> list[Path]:
        """Every feedback file that exists now, sorted."""
        return _matches(self.sources.feedback)


def run_name() -> str:
    """Name a flow run by its flow and workload file, for lists in the Prefect UI."""
    return f"{flow_run.flow_name} {Path(flow_run.parameters['config']).stem}"


def read(path: Path) -> Workload:
    """Read a workload file; its relative paths are taken from the file's own folder.

    Raises:
        ConfigError: With every mistake found, not only the first.
    """
    try:
        raw: object = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(path, [f"can't be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"is not YAML: {error}"]) from error
    if not isinstance(raw, dict):
        raise ConfigError(path, [f"holds {type(raw).__name__}, wants a mapping of settings"])
    try:
        workload = Workload.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(path, [_sentence(found) for found in error.errors()]) from error
    resolved = _resolve(workload, path.resolve().parent)
    if mistakes := _unusable(resolved):
        raise ConfigError(path, mistakes)
    return resolved


def _sentence(error: object) -> str:
    """Word one pydantic error as ``train.r: what is wrong (found ...)``."""
    assert isinstance(error, dict)
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place}: no such setting"
    if error["type"] == "missing":
        return f"{place}: is missing"
    return f"{place}: {error['msg']} (found {error['input']!r})"


def _resolve(workload: Workload, folder: Path) -> Workload:
    sources = Sources(
        logs=[str(folder / pattern) for pattern in workload.sources.logs],
        feedback=[str(folder / pattern) for pattern in workload.sources.feedback],
    )
    base = (folder / workload.base).resolve()
    return workload.model_copy(update={"sources": sources, "base": base})


def _unusable(workload: Workload) -> list[str]:
    """Name what only the disk can tell: files that are not there."""
    mistakes: list[str] = []
    if not (workload.base / "config.json").is_file():
        mistakes.append(f"base: {workload.base} has no config.json, wants a model folder")
    mistakes.extend(
        f"sources.logs: nothing matches {pattern}"
        for pattern in workload.sources.logs
        if not _matches([pattern])
    )
    return mistakes


def _matches(patterns: list[str]) -> list[Path]:
    names = {name for pattern in patterns for name in glob.glob(pattern)}  # noqa: PTH207 - absolute
    return sorted(Path(name) for name in names)
