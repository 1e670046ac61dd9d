"""The manifest of every output folder: its kind, its inputs and its files; written last.

A folder without a manifest is unfinished; see output_folders for those that have one.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.costs import Speed, Work
from components.schema import Json
from components.store import output_folders, shared_files
from components.store.output_folders import NAME

_WRITER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str)


def digest(value: object) -> str:
    """Hash a JSON-like value to 16 hex digits, independent of key order."""
    return whole_digest(value)[:16]


def whole_digest(value: object) -> str:
    """Hash a JSON-like value to 64 hex digits; ``digest`` is a prefix."""
    return hashlib.sha256(_WRITER.encode(value).encode()).hexdigest()


def version(number: int, *, first: str) -> str:
    """Return a version number as keys and manifests write it.

    Raise the number when the versioned output changes; ``tests/golden`` fails until then.

    Args:
        number: The version.
        first: The text for version 1: a digest of source files, as versions once were, so that
            outputs of that version are still found, trained on and compared.
    """
    return first if number == 1 else str(number)


def file_digest(path: Path) -> str:
    """Hash a file's bytes (SHA-256, whole)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> dict[str, Json]:
    """Read a finished folder's manifest; ``FileNotFoundError`` when it is unfinished."""
    output_folders.fetch(folder)
    manifest: dict[str, Json] = json.loads((folder / NAME).read_text())
    return manifest


def read_untouched(folder: Path) -> dict[str, Json]:
    """Read a finished folder's manifest after checking every file that it names.

    Raises:
        FileNotFoundError: The folder is unfinished, or a file is gone.
        ValueError: A file was changed after it was finished.
    """
    body = read(folder)
    files = body["files"]
    if not isinstance(files, dict):
        raise TypeError(f"the manifest of {folder} holds {files!r} where files belong")
    for name, expected in files.items():
        actual = file_digest(folder / name)
        if actual != expected:
            raise ValueError(
                f"reading {folder}: {name} hashes to {actual[:16]}, the manifest says "
                f"{str(expected)[:16]}; it was changed after it was finished, so make it again"
            )
    return body


def write(folder: Path, *, kind: str, now: datetime, body: Mapping[str, object]) -> None:
    """Finish ``folder``: hash its files and put the manifest in place in one rename.

    All of them are on the disk by then: a lost power leaves no finished output with empty files.

    If another machine has finished it, that machine's files replace these.

    Args:
        folder: The output; its name is its key.
        kind: ``snapshot``, ``adapter``, ``scorecard`` or ``evidence``.
        now: When it was finished (UTC).
        body: Its inputs and its contents.
    """
    files = file_digests(folder)
    for name in files:
        output_folders.sync_file(folder / name)
    manifest = {
        "kind": kind,
        "key": folder.name,
        "created_at": now.isoformat(timespec="seconds"),
        **body,
        "files": files,
    }
    record = json.dumps(manifest, indent=2, default=str) + "\n"
    if place := shared_files.shared_place(folder):
        shared, path = place
        if shared.push(path, folder, record) != record:
            shared.pull(path, folder)
            return
    write_atomically(folder / NAME, record)


def finish_again(folder: Path) -> None:
    """Finish an output of which files were changed or deleted, under its old date."""
    body = read(folder)
    rest = {k: v for k, v in body.items() if k not in ("kind", "key", "created_at", "files")}
    made = datetime.fromisoformat(str(body["created_at"]))
    output_folders.withdraw(folder)
    write(folder, kind=str(body["kind"]), now=made, body=rest)


def file_digests(folder: Path) -> dict[str, str]:
    """Return each file's SHA-256 by its path in the folder, without the manifest's."""
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader, or a crash, leaves either the old or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def folder_digest(folder: Path, leaving_out: AbstractSet[str] = frozenset()) -> str:
    """Return the SHA-256 (64 hex digits) over the names and contents of a folder's files.

    Args:
        folder: The folder.
        leaving_out: Relative paths of files that are left out.

    Raises:
        ValueError: It holds no file, a link, something that is not a plain file, or a name with a
            line break or a backslash, by which two different folders could share a digest.
    """
    files: dict[bytes, str] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name in leaving_out or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file() or set(name) & {"\n", "\r", "\\"}:
            raise ValueError(f"digesting {folder}: {name!r} is not a plainly named, plain file")
        files[name.encode()] = file_digest(path)
    if not files:
        raise ValueError(f"digesting {folder}: it holds no file, expected an adapter's")
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(files[name].encode() + b"  " + name + b"\n")
    return whole.hexdigest()


class Manifest(BaseModel):
    """The fields of every manifest; the folder's name is its key."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str
    key: str
    created_at: str
    files: Mapping[str, str]
    """Each file's SHA-256, by its path in the folder."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a finished folder's manifest; ``FileNotFoundError`` when it is unfinished."""
        return cls.model_validate(read(folder))

    @classmethod
    def read_untouched(cls, folder: Path) -> Self:
        """Read a manifest after checking every file that it names.

        Raises:
            FileNotFoundError: The folder is unfinished, or a file is gone.
            ValueError: A file was changed after it was finished.
        """
        return cls.model_validate(read_untouched(folder))

    def as_recorded(self) -> dict[str, Json]:
        """Return the manifest as it is in its file, with the fields that no record names."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def age(self) -> tuple[str, str]:
        """Sort key by the time of finishing, the oldest first."""
        return self.created_at, self.key


class SnapshotManifest(Manifest):
    """A training and test set."""

    workload: str
    holdout_version: str
    rows: Mapping[str, int]
    """Rows of each file."""

    tokens: Mapping[str, int] | None = None
    largest_cluster: int | None = None
    prompt_format: str | None = None
    config: Mapping[str, JsonValue] | None = None
    """The ``curate`` section that chose the rows."""


class AdapterManifest(Manifest):
    """An adapter."""

    snapshot: str
    base: str | None = None
    """The content hash of its base."""

    workload: str = ""
    base_path: Path | None = None
    prompt_template: str | None = None
    recipe: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    warm_start: str | None = None
    fresh_key: str | None = None
    """The key it would have had without a warm start."""

    commit: str = ""
    licence: str | None = None
    training_work: Work | None = None
    learned: Mapping[str, JsonValue] | None = None
    """How many rows of the snapshot were used (``examples.Selection``)."""

    data: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    prompt: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    environment: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class ScorecardManifest(Manifest):
    """The scores of one model on one task."""

    base: str
    adapter: str | None = None
    """The adapter's key, or the name of another model; ``None`` for the base alone."""

    task: str = ""
    conditions: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    window: Mapping[str, int] | None = None
    constrained: Mapping[str, JsonValue] | None = None
    speed: Speed | None = None


class SubjectRecord(BaseModel):
    """The outputs that evidence is about."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    holdout_version: str
    challenger_scorecard: str
    opponent_scorecard: str
    guard_scorecards: tuple[str, ...] = ()


class JudgementRecord(BaseModel):
    """The gate's verdict."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: str
    reasons: tuple[str, ...] = ()


class EvidenceManifest(Manifest):
    """Evidence: what a person is shown."""

    subject: SubjectRecord
    judgement: JudgementRecord
    policy: Mapping[str, JsonValue]
    scores: Mapping[str, Mapping[str, float | None]]


class SearchManifest(Manifest):
    """The result of a search; ``winner`` is an adapter's key."""

    snapshot: str
    winner: str
