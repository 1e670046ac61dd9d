"""Arrays that a comparison leaves to the next one, in files with checksums."""

import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from components.store import manifest

Array: TypeAlias = "npt.NDArray[Any]"

MANIFEST = "kept.json"

READ_BYTES = 1 << 20


class KeptArrays:
    """Arrays by name, in files of ``folder``, or in memory if it is ``None``.

    A file is mapped into memory: the system reads and drops its pages as it needs room. What is
    written is found again after ``save`` only: if a process is killed before, or a file is
    damaged, or ``version`` is another one, all start empty. What was neither read nor written is
    dropped then. Only one process may use a folder.
    """

    def __init__(self, folder: Path | None, version: str) -> None:
        self._folder = folder
        self._version = version
        self._held: dict[str, Array] = {}
        self._parts: dict[str, list[tuple[int, int]]] = {}
        self._used: set[str] = set()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._parts = self._whole_parts(folder)
            for path in folder.iterdir():
                if path.name not in self._parts:
                    path.unlink()

    def _whole_parts(self, folder: Path) -> dict[str, list[tuple[int, int]]]:
        """Return each file's parts, bytes and checksums, if no file is damaged."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads((folder / MANIFEST).read_text())
            parts = {
                name: [(size, of) for size, of in kept["files"][name]] for name in kept["files"]
            }
            if kept["version"] == self._version and all(
                _is_whole(folder / name, listed) for name, listed in parts.items()
            ):
                return parts
        return {}

    def read(self, name: str, dtype: npt.DTypeLike) -> Array:
        """Return an array of one dimension, empty if there is none."""
        self._used.add(name)
        if self._folder is None:
            return self._held.get(name, np.zeros(0, dtype))
        size = sum(size for size, _ in self._parts.get(name, []))
        if not size:
            return np.zeros(0, dtype)
        shape = size // np.dtype(dtype).itemsize
        return np.asarray(np.memmap(self._folder / name, dtype, "r", shape=(shape,)))

    def append(self, name: str, values: Array) -> None:
        """Append values to an array."""
        self._used.add(name)
        if self._folder is None:
            self._held[name] = np.concatenate([self.read(name, values.dtype), values])
        elif len(values):
            parts = self._parts.setdefault(name, [])
            with (self._folder / name).open("ab") as file:
                file.truncate(sum(size for size, _ in parts))
                file.write(values.data)
            parts.append((values.nbytes, zlib.crc32(values.data)))

    def write(self, name: str, values: Array) -> None:
        """Replace an array, whose earlier values may be in use."""
        if self._folder is None:
            self._held[name] = values
            return
        (self._folder / name).unlink(missing_ok=True)  # mapped ones stay
        self._parts.pop(name, None)
        self.append(name, np.ascontiguousarray(values))

    def save(self) -> None:
        """Keep what was read or written."""
        if self._folder is not None:
            for name in self._parts.keys() - self._used:
                self._parts.pop(name)
                (self._folder / name).unlink()
            kept = {"version": self._version, "files": self._parts}
            manifest.write_atomically(self._folder / MANIFEST, json.dumps(kept))


def _is_whole(path: Path, parts: Sequence[tuple[int, int]]) -> bool:
    with path.open("rb") as file:
        for size, expected in parts:
            checksum, left = 0, size
            while content := file.read(min(READ_BYTES, left)):
                checksum = zlib.crc32(content, checksum)
                left -= len(content)
            if left or checksum != expected:
                return False
    return True
