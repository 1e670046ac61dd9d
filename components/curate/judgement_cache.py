"""Judgements of earlier curations, kept by the row's content and the rules, in Parquet files."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

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

KEYS = ("content_digest", "screening_digest", "correction_id")
"""Columns beside those of the judgement."""

SUFFIX, PARTIAL = ".parquet", ".partial"

Marks = npt.NDArray[np.bool_]


class RowContent(NamedTuple):
    """A row of ``staging/contents``: the digest of what its judgement reads, and the correction."""

    interaction_id: str
    correction_id: str | None
    content_digest: str


class JudgedRows(NamedTuple):
    """The judgements of all rows, in the order of their ids.

    ``new`` of them were not kept, ``screened`` were kept from other quality rules.
    """

    judgements: list[RowJudgement]
    new: int
    screened: int


def judge_rows(
    con: Connection, rules: Rules, folder: Path | None, ray_address: str | None = None
) -> JudgedRows:
    """Judge the staged rows whose judgements are not kept in ``folder``, and keep them.

    Without a folder every row is judged. Only one process may use a folder at a time. With
    ``ray_address`` the cluster there judges, if there are many rows.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
    """
    warehouse.show(con, "staging/candidates")
    cache = None if folder is None else _Cache(folder, rules)
    with collector.paused():
        # Not as records by name, which takes several times as long.
        staged = map(
            RowContent._make, con.execute(warehouse.model_select("staging/contents")).fetchall()
        )
        contents = {row.interaction_id: row for row in staged}
        judgements = [] if cache is None else [*cache.load(contents)]
    outdated = {} if cache is None else cache.outdated
    unjudged = {"interaction_id": pa.array([*contents], pa.string())}
    with (
        warehouse.present(con, "unjudged", unjudged),
        # Closed even after an error: DuckDB can't roll back while a result is open.
        closing(warehouse.read(con, "staging/unjudged", CandidateRow)) as rows,
    ):
        pairs = ((row, outdated.get(row.interaction_id)) for row in rows)
        new = row_judgement.judge_all(pairs, rules, ray_address)
        judgements += new if cache is None else cache.keep(new, contents)
    if cache is not None:
        cache.merge_parts()
    judgements.sort(key=lambda judged: judged.interaction_id)
    return JudgedRows(judgements, len(contents) - len(outdated), len(outdated))


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


class _Cache:
    """The judgements of a workload.

    ``outdated`` are those under other quality rules, by interaction, once all are loaded.
    """

    def __init__(self, folder: Path, rules: Rules) -> None:
        columns = [(field.name, str(field.type)) for field in judgement_columns.SCHEMA]
        redaction = row_judgement.redaction_digest(rules)
        self._folder = folder / manifest.digest([KEYS, columns, redaction])
        self._screening = row_judgement.screening_digest(rules)
        self._live: dict[Path, Marks] = {}
        self.outdated: dict[str, RowJudgement] = {}

    def load(self, contents: dict[str, RowContent]) -> Iterator[RowJudgement]:
        """Yield the judgements of rows with these contents, and remove the rows from them."""
        for path, table in _parts(self._folder):
            keys = [table.column(name).to_numpy() for name in ("interaction_id", *KEYS[:2])]
            is_content = np.array(
                [
                    (row := contents.get(interaction_id)) is not None
                    and row.content_digest == content_digest
                    for interaction_id, content_digest, _ in zip(*keys, strict=True)
                ],
                np.bool_,
            )
            is_screened = np.array([digest == self._screening for digest in keys[2]], np.bool_)
            live = self._live[path] = is_content & is_screened
            for judged in _filtered(table, live):
                del contents[judged.interaction_id]
                yield judged
            for judged in _filtered(table, is_content & ~is_screened):
                self.outdated[judged.interaction_id] = judged
        self.outdated = {name: self.outdated[name] for name in contents.keys() & self.outdated}

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
                digests = [row.content_digest for row in rows]
                corrections = [row.correction_id for row in rows]
                values = (digests, [self._screening for _ in rows], corrections)
                for name, column in zip(KEYS, values, strict=True):
                    table = table.append_column(name, pa.array(column, pa.string()))
                self._live[_write(self._folder, table)] = np.ones(len(kept), np.bool_)
            yield from batch

    def merge_parts(self) -> None:
        """Write the rows of small files into fewer; delete judgements that nothing needs."""
        thin = [path for path, live in self._live.items() if int(live.sum()) < PART_ROWS // 2]
        if len(thin) > 1 or not all(self._live[path].any() for path in thin):
            tables = [_table(path.read_bytes()).filter(pa.array(self._live[path])) for path in thin]
            merged = pa.concat_tables(tables)
            starts = range(0, len(merged), PART_ROWS)  # none, if all of their rows are gone
            written = {_write(self._folder, merged.slice(start, PART_ROWS)) for start in starts}
            for path in {*thin} - written:
                path.unlink()
        for other in self._folder.parent.glob("*"):
            if other != self._folder:
                shutil.rmtree(other)


def _filtered(table: Any, marks: Marks) -> Iterator[RowJudgement]:  # noqa: ANN401
    return judgement_columns.judgements_of(table if marks.all() else table.filter(pa.array(marks)))


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
