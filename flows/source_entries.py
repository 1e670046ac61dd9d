"""The `sources:` section of a workload's file, and what its entries stand for now."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from components.collect import field_map, places
from components.collect.field_map import FieldMap
from components.collect.places import AwayError, UnreadableError
from components.collect.source import Defaults, Input, Kind
from components.schema import Config
from components.store.addresses import without_secrets

MAX_FOLDERS = 3  # maximum folders that a summary names

MLFLOW = "mlflow:"  # before the name of an experiment whose traces are pulled


@dataclass(frozen=True, slots=True)
class Traffic:
    """What entries stand for now."""

    inputs: Sequence[Input] = ()
    folders: Sequence[str] = ()
    """Folders with files that globs match."""
    unlisted: Mapping[str, OSError] = field(default_factory=dict[str, OSError])
    """Why entries can't be listed, by their paths."""

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            [*self.inputs, *other.inputs],
            [*self.folders, *other.folders],
            {**self.unlisted, **other.unlisted},
        )

    @property
    def folders_not_read(self) -> list[str]:
        """Return the folders that globs match, and in which no entry has a file."""
        if not self.folders:
            return []
        places = [item.place for item in self.inputs if not item.place.startswith(MLFLOW)]
        parents = {parent for place in places for parent in Path(place).parents}
        return sorted(folder for folder in {*self.folders} if Path(folder) not in parents)


def in_the_file(*fields: str) -> Callable[[Any], Any]:
    """Validate fields of a workload's file; a record that was frozen of one is read as it is.

    Its paths are absolute, and what they named may be gone by the time that an approval resumes.
    """

    def decorate(check: Any) -> Any:  # noqa: ANN401 - a class method, which has no better type
        def validate(cls: type, value: object, info: ValidationInfo) -> object:
            return value if info.context is None else check.__func__(cls, value, info)

        return field_validator(*fields)(classmethod(validate))

    return decorate


class SourceEntry(Config):
    """One place of traffic, with what its files don't contain."""

    path: str
    """A file, a folder, a glob, an fsspec URL (``s3://...``), or ``mlflow:`` and an experiment."""

    source: str | None = None
    """Which form the records have; detected from the content when left out."""

    map: FieldMap | None = None
    """In place of a source: where the fields of records of a form are that no source reads."""

    workload_id: str = ""
    """The workload of records that name none."""

    client_id: str = ""
    """The client of records that name none."""

    @field_validator("source")
    @classmethod
    def _exists(cls, source: str | None) -> str | None:
        if source is not None:
            from components.collect import importers  # noqa: PLC0415 - loads what reads records

            importers.require_known(source)
        return source

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if self.map is not None and self.source is not None:
            raise ValueError("has a source and a map, expected one of them")
        return self

    @property
    def form(self) -> str | None:
        """Return the name of the source that reads the records; ``None`` if it is detected."""
        return self.source if self.map is None else field_map.name_of(self.map)


class Sources(Config):
    """Where the traffic lies: paths relative to the workload file, or entries with settings."""

    logs: list[SourceEntry] = Field(default_factory=list[SourceEntry])
    """Interactions, in any form that a source reads; a plain path is an entry of its own."""

    feedback: list[SourceEntry] = Field(default_factory=list[SourceEntry])
    """What people thought of the answers, one JSON object a line, or in any form of a source."""

    @field_validator("logs", "feedback", mode="before")
    @classmethod
    def _entries(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        return [{"path": entry} if isinstance(entry, str) else entry for entry in value]

    @in_the_file("logs", "feedback")
    @classmethod
    def _beside_the_file(
        cls, entries: list[SourceEntry], info: ValidationInfo
    ) -> list[SourceEntry]:
        return [
            entry.model_copy(update={"path": _beside(entry.path, workload_folder(info))})
            for entry in entries
        ]

    @in_the_file("logs")
    @classmethod
    def _exist(cls, entries: list[SourceEntry], _: ValidationInfo) -> list[SourceEntry]:
        paths = [entry.path for entry in entries if not _is_elsewhere(entry.path)]
        empty = [path for path in paths if not places.matching_files(path)]
        if empty:
            raise ValueError(f"nothing matches {', '.join(empty)}")
        return entries


def files_of_entries(entries: list[SourceEntry], kind: Kind) -> list[Input]:
    """List the files of all entries; one that is under two belongs to the first."""
    inputs: dict[str, Input] = {}
    for entry in entries:
        defaults = Defaults(entry.workload_id, entry.client_id)
        paths = [entry.path] if entry.path.startswith(MLFLOW) else places.matching_files(entry.path)
        for path in paths:
            inputs.setdefault(path, Input(path, entry.form, kind, defaults))
    return [inputs[path] for path in sorted(inputs)]


def list_traffic(entries: Iterable[SourceEntry], kind: Kind) -> Traffic:
    """List what all entries stand for now; one that can't be listed keeps no other from it.

    Raises:
        UnreachableError: The address of an entry is impossible.
    """
    inputs, folders, unlisted = dict[str, Input](), list[str](), dict[str, OSError]()
    for entry in entries:
        try:
            require_answering(entry.path, away_servers(unlisted))
            for item in files_of_entries([entry], kind):
                inputs.setdefault(item.place, item)
            if not entry.path.startswith(MLFLOW):
                folders += places.matching_folders(entry.path)
        except UnreadableError as error:
            unlisted[entry.path] = error
    return Traffic([inputs[place] for place in sorted(inputs)], folders, unlisted)


def workload_folder(info: ValidationInfo) -> Path:
    """Return the folder of the workload file being read."""
    assert isinstance(info.context, Path)
    return info.context


def absolute(path: str) -> str:
    """Return a path, or what stands for one, as it is from any folder."""
    return _beside(path, Path.cwd())


def _is_elsewhere(path: str) -> bool:
    return places.REMOTE in path or path.startswith(MLFLOW)


def _beside(path: str, folder: Path) -> str:
    return path if _is_elsewhere(path) else str(folder / path)


def server_of(place: str) -> str:
    """Return the server or bucket of a place elsewhere."""
    return MLFLOW if place.startswith(MLFLOW) else places.server_of(place)


def away_servers(unread: Mapping[str, OSError]) -> set[str]:
    """Return the servers that did not answer, by why places can't be read."""
    return {server_of(place) for place, why in unread.items() if isinstance(why, AwayError)}


def require_answering(place: str, away: Set[str]) -> None:
    """Raise ``AwayError`` if the place's server is away: each is waited for once."""
    if (server := server_of(place)) in away:
        shown = without_secrets(place)
        raise AwayError(f"reaching {shown}: {server} did not answer a moment ago")


def unread_sentence(folders: Sequence[str]) -> str:
    """Return how many folders globs match, and what reads their files."""
    names = ", ".join(folders[:MAX_FOLDERS]) + (", ..." if len(folders) > MAX_FOLDERS else "")
    return (
        f"{len(folders)} folders that a glob matches are not read: {names} (name them, or end the "
        "glob in /**)"
    )
