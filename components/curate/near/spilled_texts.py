"""Texts in a file that is mapped into memory: the system reads and drops them as it needs room."""

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from components.curate.near.hashed_words import TextColumn, Texts


class SpilledTexts:
    """Collects texts in a file of the folder ``scratch``, or in memory if it is ``None``.

    The file has no name, so that nothing of it is left even after a crash.
    """

    def __init__(self, scratch: Path | None) -> None:
        # Closed by `column`; if it isn't called, by nobody holding it any more.
        self._file = None if scratch is None else tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        self._parts: list[TextColumn] = []
        self._sizes = [np.zeros(1, np.int64)]

    def add(self, texts: TextColumn) -> None:
        """Append texts."""
        if self._file is None:
            self._parts.append(texts)
            return
        view = Texts.of(texts)
        self._file.write(view.content[int(view.offsets[0]) : int(view.offsets[-1])].data)
        self._sizes.append(np.diff(view.offsets))

    def column(self) -> TextColumn:
        """Return all texts; called once, at the end."""
        if self._file is None:
            return pa.concat_arrays([pa.array([], pa.large_string()), *self._parts])
        with self._file as file:
            file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
        offsets = np.cumsum(np.concatenate(self._sizes))
        buffers = pa.py_buffer(offsets), pa.py_buffer(content)
        return cast("TextColumn", pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers))


def spilled(parts: Iterable[TextColumn], scratch: Path | None) -> TextColumn:
    """Return the texts of all parts, collected by ``SpilledTexts``."""
    texts = SpilledTexts(scratch)
    for part in parts:
        texts.add(part)
    return texts.column()
