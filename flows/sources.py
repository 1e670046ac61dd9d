"""Where a workload's traffic lies: the places that its file names, and the files that are there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from components.collect import places
from components.collect.record import Defaults, Input, Kind
from components.schema import Config

MLFLOW = "mlflow:"
"""Before the name of an experiment whose traces are pulled through MLflow's client."""


def in_the_file(*fields: str) -> Callable[[Any], Any]:
    """Validate fields of a workload's file; a record that was frozen of one is read as it is.

    Its paths are absolute, and what they named may be gone by the time that an approval resumes.
    """

    def decorate(check: Any) -> Any:  # noqa: ANN401 - a class method, which has no better type
        def validate(cls: type, value: object, info: ValidationInfo) -> object:
            return value if info.context is None else check.__func__(cls, value, info)

        return field_validator(*fields)(classmethod(validate))

    return decorate


class Entry(Config):
    """One place of traffic, with what the files don't say themselves."""

    path: str
    """A file, a folder, a glob, an fsspec URL (``s3://...``), or ``mlflow:`` and an experiment."""

    source: str | None = None
    """Which form the records have; detected from the content when left out."""

    workload_id: str = ""
    """The workload of records that name none."""

    client_id: str = ""
    """The client of records that name none."""

    @field_validator("source")
    @classmethod
    def _exists(cls, source: str | None) -> str | None:
        from components.collect import detect  # noqa: PLC0415 - it loads every source

        if source is not None:
            detect.named(source)
        return source


class Sources(Config):
    """Where the traffic lies: paths relative to the workload file, or entries that say more."""

    logs: list[Entry] = Field(default_factory=list[Entry])
    """Interactions, in any form that a source reads; a plain path is an entry of its own."""

    feedback: list[Entry] = Field(default_factory=list[Entry])
    """What people thought of the answers, one JSON object a line, or in any form of a source."""

    @field_validator("logs", "feedback", mode="before")
    @classmethod
    def _entries(cls, given: object) -> object:
        if not isinstance(given, list):
            return given
        return [{"path": one} if isinstance(one, str) else one for one in given]

    @in_the_file("logs", "feedback")
    @classmethod
    def _beside_the_file(cls, entries: list[Entry], info: ValidationInfo) -> list[Entry]:
        return [
            entry.model_copy(update={"path": _beside(entry.path, folder(info))})
            for entry in entries
        ]

    @in_the_file("logs")
    @classmethod
    def _exist(cls, entries: list[Entry], _: ValidationInfo) -> list[Entry]:
        paths = [entry.path for entry in entries if not _is_elsewhere(entry.path)]
        empty = [path for path in paths if not places.matching(path)]
        if empty:
            raise ValueError(f"nothing matches {', '.join(empty)}")
        return entries


def inputs(entries: list[Entry], kind: Kind) -> list[Input]:
    """List the files of all entries; one that is under two belongs to the first."""
    found: dict[str, Input] = {}
    for entry in entries:
        defaults = Defaults(entry.workload_id, entry.client_id)
        paths = [entry.path] if entry.path.startswith(MLFLOW) else places.matching(entry.path)
        for path in paths:
            found.setdefault(path, Input(path, entry.source, kind, defaults))
    return [found[path] for path in sorted(found)]


def folder(info: ValidationInfo) -> Path:
    """Give the folder of the file that is being read."""
    assert isinstance(info.context, Path)
    return info.context


def _is_elsewhere(path: str) -> bool:
    return places.REMOTE in path or path.startswith(MLFLOW)


def _beside(path: str, folder: Path) -> str:
    return path if _is_elsewhere(path) else str(folder / path)
