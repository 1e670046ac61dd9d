"""Write what was collected as five-key lines (feedback as its own), whatever source it came from.

Loading such a file gives the same rows again, with the same ids.
"""

import gzip
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from components import warehouse
from components.collect.record import Kind
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class _Exported:
    line: str


def export(con: Connection, path: Path, kind: Kind, *, workload_id: str | None = None) -> int:
    """Write canonical records to a file of lines, gzip'd if its name ends in ``.gz``.

    The file appears only when it is whole.

    Args:
        con: The warehouse.
        path: The file, which is replaced if it is there.
        kind: Interactions or feedback.
        workload_id: Whose; all if ``None``.

    Returns:
        How many lines were written.
    """
    count = 0
    with _replaced(path) as file:
        model = f"marts/exported_{kind}"
        for row in warehouse.read(con, model, _Exported, workload_id=workload_id):
            file.write(row.line + "\n")
            count += 1
    return count


@contextmanager
def _replaced(path: Path) -> Generator[IO[str]]:
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.suffix == ".gz":
            with gzip.open(partial, "wt", encoding="utf-8", newline="\n") as file:
                yield file
        else:
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
