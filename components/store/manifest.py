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
