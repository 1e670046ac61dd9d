"""Judgements of earlier curations, kept by the row's content and the rules, in Parquet files."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.curate import collector, judgement_columns, row_judgement
from components.curate.interaction import CandidateRow
from components.curate.row_judgement import RowJudgement
from components.curate.settings import Rules
from components.curate.worker_pool import UNJUDGEABLE
from components.store import manifest, warehouse
from components.store.warehouse import Connection

PART_ROWS = 8192
"""Rows of a file: a killed curation judges at most this many again."""

KEYS = ("content_digest", "correction_id")
"""Columns beside those of the judgement."""

SUFFIX, PARTIAL = ".parquet", ".partial"

Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RowContent:
    """A row of ``staging/contents``: the digest of what its judgement reads, and the correction."""

    interaction_id: str
    correction_id: str | None
    content_digest: str


def judge_rows(
    con: Connection, rules: Rules, folder: Path | None
) -> tuple[list[RowJudgement], int]:
    """Judge the staged rows whose judgements are not kept in ``folder``, and keep them.

    Without a folder every row is judged. Only one process may use a folder at a time. Return the
    judgements of all rows, in the order of their ids, and how many were made now.
    """
    warehouse.show(con, "staging/candidates")
    cache = None if folder is None else _Cache(folder / _conditions(rules))
    with collector.paused():
        rows = warehouse.read(con, "staging/contents", RowContent)
        contents = {row.interaction_id: row for row in rows}
        judgements = [] if cache is None else [*cache.load(contents)]
    kept = len(judgements)
    unjudged = {"interaction_id": pa.array([*contents], pa.string())}
    with (
        warehouse.present(con, "unjudged", unjudged),
        # Closed even after an error: DuckDB can't roll back while a result is open.
        closing(warehouse.read(con, "staging/unjudged", CandidateRow)) as rows,
    ):
        new = row_judgement.judge_all(rows, rules)
        judgements += new if cache is None else cache.keep(new, contents)
    if cache is not None:
        cache.merge_parts()
    judgements.sort(key=lambda judged: judged.interaction_id)
    return judgements, len(judgements) - kept


def _conditions(rules: Rules) -> str:
    """Return the digest of all but its content that a row's kept judgement depends on."""
    columns = [(field.name, str(field.type)) for field in judgement_columns.SCHEMA]
    return manifest.digest([KEYS, columns, row_judgement.rules_digest(rules)])


def forget_missing(con: Connection, folder: Path) -> int:
    """Delete the judgements of rows that raw no longer has, or with such a correction.

    Return their number. Nobody may use ``folder``, that of a workload, meanwhile.
    """
    forgotten = 0
    for rules_folder in sorted(folder.glob("*")):
        for path, table in _parts(rules_folder):
            keys = {name: table.column(name) for name in ("interaction_id", "correction_id")}
            with warehouse.present(con, "kept", {**keys, "place": np.arange(len(table))}):
                gone = [place for (place,) in con.execute(_GONE).fetchall()]
            if gone:
                forgotten += len(gone)
                stays = np.ones(len(table), np.bool_)
                stays[gone] = False
                if stays.any():
                    _write(rules_folder, table.filter(pa.array(stays)))
                path.unlink()
    return forgotten


_GONE = """
    select kept.place
    from kept
    left join raw.interactions as interactions using (interaction_id)
    left join raw.feedback as feedback on kept.correction_id = feedback.feedback_id
    where
        interactions.interaction_id is null
        or (kept.correction_id is not null and feedback.feedback_id is null)
"""


@dataclass(slots=True)
class _Cache:
    """The judgements under one set of rules."""

    folder: Path
    live: dict[Path, Marks] = field(default_factory=dict[Path, Marks])

    def load(self, contents: dict[str, RowContent]) -> Iterator[RowJudgement]:
        """Yield the judgements of rows with these contents, and remove the rows from them."""
        for path, table in _parts(self.folder):
            keys = (table.column(name).to_pylist() for name in ("interaction_id", "content_digest"))
            live = np.array([_take(contents, *key) for key in zip(*keys, strict=True)], np.bool_)
            self.live[path] = live
            known = table if live.all() else table.filter(pa.array(live))
            yield from judgement_columns.judgements_of(known)

    def keep(
        self, judgements: Iterable[RowJudgement], contents: dict[str, RowContent]
    ) -> Iterator[RowJudgement]:
        """Yield the judgements, and write those that the next curation would make again."""
        remaining = iter(judgements)
        while batch := [*islice(remaining, PART_ROWS)]:
            # An error may be of this moment, such as a row that took too long.
            kept = [judged for judged in batch if judged.objection != UNJUDGEABLE]
            rows = [contents[judged.interaction_id] for judged in kept]
            if kept:
                table = judgement_columns.table_of(kept)
                for name in KEYS:
                    column = pa.array([getattr(row, name) for row in rows], pa.string())
                    table = table.append_column(name, column)
                self.live[_write(self.folder, table)] = np.ones(len(kept), np.bool_)
            yield from batch

    def merge_parts(self) -> None:
        """Write the rows of small files into fewer, and delete judgements by other rules."""
        thin = [path for path, live in self.live.items() if int(live.sum()) < PART_ROWS // 2]
        if len(thin) > 1:
            tables = [_table(path.read_bytes()).filter(pa.array(self.live[path])) for path in thin]
            merged = pa.concat_tables(tables)
            starts = range(0, len(merged), PART_ROWS)  # none, if all of their rows are gone
            written = {_write(self.folder, merged.slice(start, PART_ROWS)) for start in starts}
            for path in {*thin} - written:
                path.unlink()
        for other in self.folder.parent.glob("*"):
            if other != self.folder:
                shutil.rmtree(other)


def _take(contents: dict[str, RowContent], interaction_id: str, content_digest: str) -> bool:
    """Remove a row from ``contents``; return ``False`` if it isn't there with this digest."""
    row = contents.get(interaction_id)
    if row is None or row.content_digest != content_digest:
        return False
    del contents[interaction_id]
    return True


def _parts(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the whole files of a folder; delete those that are damaged or unfinished."""
    for path in sorted(folder.glob("*")):
        content = path.read_bytes()
        if path.name == _name(content):
            yield path, _table(content)
        else:
            path.unlink()


def _table(content: bytes) -> Any:  # noqa: ANN401 - pyarrow has no types
    return pq.read_table(pa.BufferReader(content), use_threads=False)


def _write(folder: Path, table: Any) -> Path:  # noqa: ANN401 - pyarrow has no types
    """Write a file of judgements; its name is the digest of its bytes."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="lz4")
    content = buffer.getvalue()
    path = folder / _name(content)
    partial = path.with_suffix(PARTIAL)
    folder.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(content)
    partial.replace(path)
    return path


def _name(content: Any) -> str:  # noqa: ANN401 - bytes, or pyarrow's
    return hashlib.sha256(content).hexdigest() + SUFFIX
