"""Judgements of earlier curations, kept by the row's content and the rules, in Parquet files."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from components.curate import judgement_columns, kept_files, parsed_rows, row_judgement
from components.curate.interaction import CandidateRow
from components.curate.judged_rows import JudgedPart, JudgedRows
from components.curate.redaction import clean_exchanges
from components.curate.row_judgement import Instructions, RowJudgement
from components.curate.settings import Rules
from components.curate.text_codes import MISSING, Ints, Marks
from components.curate.worker_pool import UNJUDGEABLE
from components.store import manifest, warehouse
from components.store.arrow import compute
from components.store.warehouse import Connection

CORRECTION = "correction_id"
KEYS = ("content_digest", "screening_digest", CORRECTION)
"""Columns beside those of the judgement."""

BESIDE = (parsed_rows.PREFIX, clean_exchanges.PREFIX)
"""What the names of the folders beside those of judgements begin with."""


class _Contents(NamedTuple):
    """The columns of ``staging/contents``, in Arrow: what each row's judgement reads, digested."""

    interaction_id: Any
    correction_id: Any
    content_digest: Any


def judge_rows(
    con: Connection,
    workload_id: str,
    rules: Rules,
    folder: Path,
    ray_address: str | None = None,
    instructions: Instructions = None,
) -> JudgedRows:
    """Judge a workload's staged rows whose judgements are not kept in ``folder``, and keep them.

    Only one process may use a folder at a time, and none may write to it while the judgements are
    read. With ``ray_address`` the cluster there judges, if there are many rows.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
    """
    warehouse.show(con, "staging/candidates")
    staged: Any = warehouse.table(con, "staging/contents")
    contents = _Contents(*(staged.column(name).combine_chunks() for name in _Contents._fields))
    cache = _Cache(folder, row_judgement.screening_digest(rules, instructions), rules, contents)
    are_missing = pa.array(cache.are_missing)
    unjudged = {
        "interaction_id": contents.interaction_id.filter(are_missing),
        "place": pa.array(cache.places).filter(are_missing),
    }
    with (
        warehouse.present(con, "unjudged", unjudged),
        parsed_rows.texts_of(con, "unjudged"),
        # Closed even after an error: DuckDB can't roll back while a result is open.
        closing(warehouse.read(con, "staging/unjudged", CandidateRow)) as rows,
    ):
        pairs = ((row, cache.outdated.take(row.interaction_id)) for row in rows)
        cache.keep(row_judgement.judge_all(pairs, rules, ray_address, instructions))
    new = int(cache.are_missing.sum()) - cache.outdated.count
    return JudgedRows(workload_id, cache.merged_parts(), new, cache.outdated.count)


def forget_missing(con: Connection, folder: Path) -> int:
    """Delete what is kept of rows that raw no longer has, and judgements by such a correction.

    Return the number of rows in files. What redacted exchanges kept is of the texts of all rows, so
    that all of it goes. Nobody may use ``folder``, that of a workload, meanwhile.
    """
    for clean in folder.glob(f"{clean_exchanges.PREFIX}*"):
        shutil.rmtree(clean)
    forgotten = 0
    for rules_folder in sorted(folder.glob("*")):
        for path in kept_files.whole(rules_folder):
            table = kept_files.read(path)
            names = [name for name in ("interaction_id", CORRECTION) if name in table.schema.names]
            keys = {name: table.column(name) for name in names}
            keys.setdefault(CORRECTION, pa.nulls(len(table), pa.string()))  # of parsed rows
            with warehouse.present(con, "kept", {**keys, "place": np.arange(len(table))}):
                gone = [place for (place,) in con.execute(_GONE).fetchall()]
            if gone:
                forgotten += len(gone)
                stays = np.ones(len(table), np.bool_)
                stays[gone] = False
                if stays.any():
                    kept_files.write(rules_folder, table.filter(pa.array(stays)))
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


class _Outdated:
    """Judgements by other quality rules, of which one file's are in memory."""

    def __init__(self, parts: Sequence[tuple[Path, Marks]] = ()) -> None:
        self.count = sum(int(marks.sum()) for _, marks in parts)
        # A row that has none passes over all of them: others' files are not read.
        self._parts = iter([(path, marks) for path, marks in parts if marks.any()])
        self._judgements: dict[str, RowJudgement] = {}

    def take(self, interaction_id: str) -> RowJudgement | None:
        """Return a row's judgement; called for the rows in the order of the files."""
        while interaction_id not in self._judgements:
            path, marks = next(self._parts, (None, None))
            if path is None or marks is None:
                return None
            table = kept_files.read(path).filter(pa.array(marks))
            judgements = judgement_columns.judgements_of(table)
            self._judgements = {judged.interaction_id: judged for judged in judgements}
        return self._judgements[interaction_id]


class _Cache:
    """The judgements of a workload's rows with some contents.

    ``are_missing`` marks the contents whose rows must be judged, and ``places`` order them: those
    with an ``outdated`` judgement in the order of the files, then the others.
    """

    def __init__(self, folder: Path, screening: str, rules: Rules, contents: _Contents) -> None:
        columns = [(field.name, str(field.type)) for field in judgement_columns.SCHEMA]
        redaction = row_judgement.redaction_digest(rules)
        self._folder = folder / manifest.digest([KEYS, columns, redaction])
        self._screening = screening
        self._contents = contents
        self._live: dict[Path, Marks] = {}
        self.are_missing = np.ones(len(contents.interaction_id), np.bool_)
        self.places = np.full(len(contents.interaction_id), len(contents.interaction_id))
        self.outdated = _Outdated()
        self._load()

    def _load(self) -> None:
        paths = [*kept_files.whole(self._folder)]
        if not paths:
            return
        keys = [kept_files.read(path, ["interaction_id", *KEYS[:2]]) for path in paths]
        ends = np.cumsum([len(table) for table in keys])[:-1]
        table = pa.concat_tables(keys)
        rows = compute.index_in(
            table.column("interaction_id"), value_set=self._contents.interaction_id
        )
        expected = self._contents.content_digest.take(rows.combine_chunks())
        has_content = compute.fill_null(
            compute.equal(table.column("content_digest"), expected),
            False,
        ).to_numpy()
        has_rules = compute.equal(table.column("screening_digest"), self._screening).to_numpy()
        of_contents = compute.fill_null(rows, MISSING).to_numpy().astype(np.int64)
        live = _firsts(of_contents, has_content & has_rules)
        self.are_missing[of_contents[live]] = False
        others = has_content & ~has_rules
        others[others] = self.are_missing[of_contents[others]]
        are_outdated = _firsts(of_contents, others)
        self.places[of_contents[are_outdated]] = np.arange(int(are_outdated.sum()))
        self._live = dict(zip(paths, np.split(live, ends), strict=True))
        self.outdated = _Outdated([*zip(paths, np.split(are_outdated, ends), strict=True)])

    def keep(self, judgements: Iterable[RowJudgement]) -> None:
        """Write judgements, of which the next curation reads those that it would make again."""
        remaining = iter(judgements)
        while batch := [*islice(remaining, kept_files.PART_ROWS)]:
            table = judgement_columns.table_of(batch)
            rows = compute.index_in(
                table.column("interaction_id"), value_set=self._contents.interaction_id
            ).combine_chunks()
            # An error may be of this moment, such as a row that took too long.
            is_final = compute.invert(
                compute.fill_null(compute.equal(table.column("objection"), UNJUDGEABLE), False)
            )
            digests = self._contents.content_digest.take(rows)
            values = (
                compute.if_else(is_final, digests, pa.scalar(None, pa.string())),
                pa.repeat(self._screening, len(batch)),
                self._contents.correction_id.take(rows),
            )
            for name, column in zip(KEYS, values, strict=True):
                table = table.append_column(name, column)
            self._live[kept_files.write(self._folder, table)] = np.ones(len(batch), np.bool_)

    def merged_parts(self) -> list[JudgedPart]:
        """Write the rows of small files into fewer, and delete judgements that nothing needs.

        Return the files that are left.
        """
        thin = [
            path for path, live in self._live.items() if int(live.sum()) < kept_files.PART_ROWS // 2
        ]
        if len(thin) > 1 or not all(self._live[path].any() for path in thin):
            tables = [kept_files.read(path).filter(pa.array(self._live.pop(path))) for path in thin]
            for path, rows in kept_files.write_parts(self._folder, pa.concat_tables(tables)):
                self._live[path] = np.ones(rows, np.bool_)
            for path in {*thin} - self._live.keys():
                path.unlink()
        for other in self._folder.parent.glob("*"):
            if other != self._folder and not other.name.startswith(BESIDE):
                shutil.rmtree(other)
        return [JudgedPart(path, is_live) for path, is_live in self._live.items()]


def _firsts(rows: Ints, marks: Marks) -> Marks:
    """Return the marks of the first occurrence of each row."""
    places = np.flatnonzero(marks)
    _, first = np.unique(rows[places], return_index=True)
    firsts = np.zeros(len(marks), np.bool_)
    firsts[places[first]] = True
    return firsts
