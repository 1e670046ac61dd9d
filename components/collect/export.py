"""Write what was collected as five-key lines (feedback as its own), whatever source it came from.

Rows that retention took out of the warehouse are among them. Loading such a file gives the same
rows again, with the same ids.
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

    Raises:
        FileNotFoundError: A file of retention is not where it was put.
    """
    _show_archived(con, kind)
    count = 0
    with _replaced(path) as file:
        model = f"marts/exported_{kind}"
        for row in warehouse.read(con, model, _Exported, workload_id=workload_id):
            file.write(row.line + "\n")
            count += 1
    return count


def _show_archived(con: Connection, kind: Kind) -> None:
    """Let SQL read what retention took out of the warehouse as ``archived``."""
    sql = "select distinct path from raw.archived where kind = $kind order by path"
    paths = [Path(str(row["path"])) for row in warehouse.rows(con, sql, kind=kind)]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f"exporting: {path}, where retention put old rows, is gone; put it back"
            )
    warehouse.show_files(con, "archived", paths, like=f"raw.{kind}")


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
