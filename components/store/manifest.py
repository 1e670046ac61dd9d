"""The manifest of every output folder: its kind, its inputs and its files; written last.

A folder without a manifest is unfinished; one with a manifest is never changed again. Its name is
its key: the digest of all inputs, so that equal inputs find the finished folder. If the home has
an object store, a folder is pushed there when it is finished, and pulled when it is asked for.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.costs import Speed, Work
from components.schema import Json
from components.store import file_locks, object_store
from components.store.object_store import NAME


def digest(value: object) -> str:
    """Hash a JSON-like value to 16 hex digits, independent of key order."""
    return whole_digest(value)[:16]


def whole_digest(value: object) -> str:
    """Hash a JSON-like value to 64 hex digits; ``digest`` is a prefix."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


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


def is_finished(folder: Path) -> bool:
    """Return whether the output in ``folder`` is complete; pull it if only the store has it."""
    if (folder / NAME).exists():
        return True
    place = object_store.place_of(folder)
    return place is not None and place[0].pull(place[1], folder)


def listed(root: Path) -> list[str]:
    """List the names in a folder of outputs, here and in the store, finished or not, sorted."""
    place = object_store.place_of(root)
    names = {path.name for path in root.glob("[!.]*")}  # a hidden one is being pulled
    return sorted(names.union(place[0].names(place[1])) if place else names)


def finished_folders(root: Path, begins: str = "") -> list[Path]:
    """Return the finished outputs in a folder of them whose names begin so, sorted by name.

    Those that only the store has are pulled.
    """
    folders = [root / name for name in listed(root) if name.startswith(begins)]
    return [folder for folder in folders if is_finished(folder)]


class SourceGoneError(RuntimeError):
    """What an output is made from was deleted meanwhile, as an erasure does."""


def count_copies(folders: Iterable[Path]) -> dict[Path, int]:
    """Count where each output is finished: here, and in the store."""
    return {folder: _copies(folder) for folder in folders}


def _copies(folder: Path) -> int:
    return (folder / NAME).exists() + (_stored(folder) is not None)


def read_text(folder: Path) -> str | None:
    """Return a finished output's manifest, and pull nothing; ``None`` if it is unfinished."""
    try:
        return (folder / NAME).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return _stored(folder)


def _stored(folder: Path) -> str | None:
    place = object_store.place_of(folder)
    return place[0].read(f"{place[1]}/{NAME}") if place else None


FINISHING = ".finishing"
"""The lock file in a root of outputs: shared by who finishes one, held alone by an erasure."""


@contextmanager
def while_kept(sources: Mapping[Path, int], output: Path) -> Generator[None]:
    """Finish an output in the block; delete it if a copy of a source was deleted meanwhile.

    Else an erasure, which deletes what it finds, would not know of it.

    Args:
        sources: What the output is made from, such as a snapshot, with the ``count_copies`` of
            each before it was read.
        output: The folder or file of the output, ``<root>/<workload>/<key>``.

    Raises:
        SourceGoneError: There are fewer; the output is not kept.
    """
    with file_locks.held(output.parent.parent / FINISHING, shared=True):
        _require_copies(sources, output)
        yield
        try:
            _require_copies(sources, output)
        except SourceGoneError:
            remove(output)
            raise


@contextmanager
def while_none_finishes(*roots: Path) -> Generator[None]:
    """Let no process of this machine finish an output by ``while_kept`` in the block.

    What an erasure finds there before it deletes anything is all that there will be.
    """
    with ExitStack() as stack:
        for root in roots:
            stack.enter_context(file_locks.held(root / FINISHING))
        yield


def _require_copies(sources: Mapping[Path, int], output: Path) -> None:
    for source, count in sources.items():
        if _copies(source) < count:
            raise SourceGoneError(
                f"finishing {output}: {source}, which it is made from, was deleted meanwhile, as "
                "an erasure does, so it is not kept; run the turn again"
            )


def remove(folder: Path) -> None:
    """Delete an output here and in the store; its manifest goes first.

    The one here before the store's: by that ``moved_outputs.push`` knows that it pushed too late.
    """
    if folder.is_dir():
        (folder / NAME).unlink(missing_ok=True)
    withdraw(folder)
    forget(folder)


def forget(folder: Path) -> None:
    """Delete this machine's copies of an output, and nothing in the store."""
    object_store.forget_pulls(folder)
    if folder.is_file():
        folder.unlink()
    elif folder.exists():
        (folder / NAME).unlink(missing_ok=True)  # half a folder must not look finished
        shutil.rmtree(folder.resolve())
        if folder.is_symlink():  # to another disk
            folder.unlink()


def withdraw(folder: Path) -> None:
    """Delete an output in the store, so that another one can be finished under its key."""
    if place := object_store.place_of(folder):
        place[0].remove(place[1])


def read(folder: Path) -> dict[str, Json]:
    """Read a finished folder's manifest; ``FileNotFoundError`` when it is unfinished."""
    is_finished(folder)  # pulls it
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

    If another machine has finished it in the object store, that machine's files replace these.

    Args:
        folder: The output; its name is its key.
        kind: ``snapshot``, ``adapter``, ``scorecard`` or ``evidence``.
        now: When it was finished (UTC).
        body: Its inputs and its contents.
    """
    files = file_digests(folder)
    for name in files:
        object_store.sync_file(folder / name)
    manifest = {
        "kind": kind,
        "key": folder.name,
        "created_at": now.isoformat(timespec="seconds"),
        **body,
        "files": files,
    }
    record = json.dumps(manifest, indent=2, default=str) + "\n"
    if place := object_store.place_of(folder):
        store, path = place
        if store.push(path, folder, record) != record:
            store.pull(path, folder)
            return
    write_atomically(folder / NAME, record)


def finish_again(folder: Path) -> None:
    """Finish an output of which files were changed or deleted, under its old date."""
    body = read(folder)
    rest = {k: v for k, v in body.items() if k not in ("kind", "key", "created_at", "files")}
    made = datetime.fromisoformat(str(body["created_at"]))
    withdraw(folder)
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
