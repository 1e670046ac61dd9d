"""Read the one YAML file that describes a workload, or list every mistake in it."""

import glob
from pathlib import Path
from typing import Annotated

import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.runtime import flow_run
from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator

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

    @field_validator("logs", "feedback")
    @classmethod
    def _beside_the_file(cls, patterns: list[str], info: ValidationInfo) -> list[str]:
        return [str(_folder(info) / pattern) for pattern in patterns]

    @field_validator("logs")
    @classmethod
    def _exist(cls, patterns: list[str]) -> list[str]:
        empty = [pattern for pattern in patterns if not _matches([pattern])]
        if empty:
            raise ValueError(f"nothing matches {', '.join(empty)}")
        return patterns


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

    @field_validator("base")
    @classmethod
    def _is_model(cls, base: Path, info: ValidationInfo) -> Path:
        found = (_folder(info) / base).resolve()
        if not (found / "config.json").is_file():
            raise ValueError(f"{found} has no config.json, wants a model folder")
        return found

    @field_validator("collect_schedule", "turn_schedule")
    @classmethod
    def _is_cron(cls, text: str) -> str:
        try:
            return CronSchedule(cron=text).cron
        except ValidationError as error:
            raise ValueError(f"is no cron line: {text!r}") from error

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
        return Workload.model_validate(raw, context=path.resolve().parent)
    except ValidationError as error:
        raise ConfigError(path, [_sentence(found) for found in error.errors()]) from error


def _sentence(error: object) -> str:
    """Word one pydantic error as ``train.r: what is wrong (found ...)``."""
    assert isinstance(error, dict)
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place}: no such setting"
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    return f"{place}: {error['msg']} (found {error['input']!r})"


def _folder(info: ValidationInfo) -> Path:
    """Give the folder of the file that is being read."""
    assert isinstance(info.context, Path)
    return info.context


def _matches(patterns: list[str]) -> list[Path]:
    names = {name for pattern in patterns for name in glob.glob(pattern)}  # noqa: PTH207 - absolute
    return sorted(Path(name) for name in names)
