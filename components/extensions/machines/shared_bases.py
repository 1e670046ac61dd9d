"""Bases in the object store, by the hash of their content, for machines that have them nowhere."""

import json
from pathlib import Path

from components.extensions.machines.object_store import ObjectStore
from components.models import base as bases
from components.store import manifest, output_folders

PLACE = "models"  # in the store, ``<content hash>`` below it; a home's folder has the same name


def push(store: ObjectStore, path: Path) -> str:
    """Push a base unless the store has it; return the hash of its content."""
    key = bases.content_hash(path)
    place = f"{PLACE}/{key}"
    if store.read(f"{place}/{manifest.NAME}") is None:
        body = {"path": str(path), "files": manifest.file_digests(path)}
        store.push(place, path, json.dumps(body, indent=2))
    return key


def local_base(models: Path, path: Path, key: str) -> Path:
    """Return a base's folder on this machine: at the same path, or else pulled into ``models``.

    Raises:
        FileNotFoundError: Neither this machine nor the store has it.
        ValueError: What was pulled has another content.
    """
    if (path / "config.json").is_file():
        return path
    pulled = models / key
    if not output_folders.fetch(pulled):
        raise FileNotFoundError(
            f"looking for the base {path}: this machine has none there, and the object store has "
            f"no {PLACE}/{key}"
        )
    if (content := bases.content_hash(pulled)) != key:
        raise ValueError(
            f"using {pulled} as the base {path}: the content hash of its files is {content}, "
            f"expected {key}; delete it here and in the object store, and start the turn again"
        )
    return pulled
