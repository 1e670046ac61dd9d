"""The record beside every output: what it is, what it was made from; written last.

A folder without a manifest is unfinished work; one with a manifest is never touched again. Its name
is its key: the digest of everything that went in, so equal inputs find the finished folder.
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

NAME = "manifest.json"


def digest(value: object) -> str:
    """Hash a JSON-like value to 16 hex digits; equal values in any key order hash alike."""
    return whole_digest(value)[:16]


def whole_digest(value: object) -> str:
    """Hash a JSON-like value to all 64 hex digits, of which ``digest`` is the beginning."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def version(number: int, *, first: str) -> str:
    """Return a version number as keys and manifests write it.

    Raise a number when the output that it stands for changes; ``tests/golden`` fails until then.

    Args:
        number: The version.
        first: What version 1 is written as: a digest of source files, as versions once were. So
            what was made with it is found again, trained on and compared.
    """
    return first if number == 1 else str(number)


def file_digest(path: Path) -> str:
    """Hash a file's bytes (SHA-256, whole)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_finished(folder: Path) -> bool:
    """Tell whether the output in ``folder`` was completed."""
    return (folder / NAME).exists()


def read(folder: Path) -> dict[str, Json]:
    """Read a finished folder's manifest; ``FileNotFoundError`` when it is unfinished."""
    manifest: dict[str, Json] = json.loads((folder / NAME).read_text())
    return manifest


def read_untouched(folder: Path) -> dict[str, Json]:
    """Read a finished folder's manifest after checking every file that it names.

    Raises:
        FileNotFoundError: The folder is unfinished, or a file is gone.
        ValueError: A file's content is not the one that was finished.
    """
    body = read(folder)
    files = body["files"]
    if not isinstance(files, dict):
        raise TypeError(f"the manifest of {folder} holds {files!r} where files belong")
    for name, expected in files.items():
        found = file_digest(folder / name)
        if found != expected:
            raise ValueError(
                f"reading {folder}: {name} hashes to {found[:16]}, the manifest says "
                f"{str(expected)[:16]}; it was changed after it was finished, so make it again"
            )
    return body


def write(folder: Path, *, kind: str, now: datetime, body: Mapping[str, object]) -> None:
    """Finish ``folder``: hash its files and put the manifest in place in one rename.

    Args:
        folder: The output; its name is its key.
        kind: ``snapshot``, ``adapter``, ``scorecard`` or ``evidence``.
        now: When it was finished (UTC).
        body: What it was made from and what it holds.
    """
    files = {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    manifest = {
        "kind": kind,
        "key": folder.name,
        "created_at": now.isoformat(timespec="seconds"),
        **body,
        "files": files,
    }
    write_atomically(folder / NAME, json.dumps(manifest, indent=2, default=str) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a crash, sees either the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def folder_digest(folder: Path, leaving_out: AbstractSet[str] = frozenset()) -> str:
    """Return the digest (64 hex digits) over the names and contents of all files of a folder.

    Args:
        folder: The folder.
        leaving_out: Paths in it of files that are not digested.

    Raises:
        ValueError: It holds no file, a link, something that is no plain file, or a name with a line
            break or a backslash, which two different folders could share a digest by.
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
    """What every finished folder records; its name is its key."""

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
            ValueError: A file's content is not the one that was finished.
        """
        return cls.model_validate(read_untouched(folder))

    def as_recorded(self) -> dict[str, Json]:
        """Return the manifest as it is in its file, with the fields that no record names."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def age(self) -> tuple[str, str]:
        """What orders outputs by when they were finished, the oldest first."""
        return self.created_at, self.key


class SnapshotManifest(Manifest):
    """What a training and test set was frozen from."""

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
    """What an adapter was made from."""

    snapshot: str
    base: str | None = None
    """The content hash of its base."""

    workload: str = ""
    base_path: Path | None = None
    prompt_template: str | None = None
    recipe: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    warm_start: str | None = None
    fresh_key: str | None = None
    """Its key had it started from the base alone."""

    commit: str = ""
    licence: str | None = None
    training_work: Work | None = None
    learned: Mapping[str, JsonValue] | None = None
    """What became of the snapshot's rows (``examples.Selection``)."""

    data: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    prompt: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    environment: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class ScorecardManifest(Manifest):
    """What was measured of which model, and how."""

    base: str
    adapter: str | None = None
    """The adapter's key, or what else answered; ``None`` for the base alone."""

    task: str = ""
    conditions: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    window: Mapping[str, int] | None = None
    speed: Speed | None = None


class SubjectRecord(BaseModel):
    """Of what evidence is about: what other outputs are found by."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    holdout_version: str
    challenger_scorecard: str
    opponent_scorecard: str
    guard_scorecards: tuple[str, ...] = ()


class JudgementRecord(BaseModel):
    """How the gate judged."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: str
    reasons: tuple[str, ...] = ()


class EvidenceManifest(Manifest):
    """What a person is shown."""

    subject: SubjectRecord
    judgement: JudgementRecord
    policy: Mapping[str, JsonValue]
    scores: Mapping[str, Mapping[str, float | None]]


class SearchManifest(Manifest):
    """What a search came to; ``winner`` is an adapter's key."""

    snapshot: str
    winner: str
