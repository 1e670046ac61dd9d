"""The raw rows of a workload, parsed: what earlier curations kept of them, in Parquet files.

What is in a row depends on its text alone, so that each is parsed once and not every night.
"""

import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.curate import kept_files
from components.curate.text_codes import Ints
from components.store import manifest, warehouse
from components.store.warehouse import Connection

MODEL = "staging/parsed"

PREFIX = "parsed-"
"""Of the name of their folder, which is beside those of judgements."""

KEY = pa.schema(
    [
        ("interaction_id", pa.string()),
        ("file_digest", pa.string()),
        ("line", pa.int64()),
        ("content_hash", pa.uint64()),
        ("record_digest", pa.string()),
    ]
)
"""The columns that identify a row of raw and its text."""

NO_KEYS = pa.Table.from_batches([], KEY.append(pa.field("place", pa.int64())))


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """The files of a folder, and the keys of their rows with their places in all files.

    ``keys`` has only interactions that are once in the files: a killed curation leaves some twice.
    """

    folder: Path
    paths: Sequence[Path]
    sizes: Sequence[int]
    keys: Any


def read(folder: Path) -> ParsedRows:
    """Read what is kept in a workload's folder of judgements, which nobody else may use meanwhile.

    What another version kept is deleted.
    """
    version = [warehouse.model_select(MODEL), metadata.version("duckdb")]
    own = folder / f"{PREFIX}{manifest.digest(version)}"
    for other in folder.glob(f"{PREFIX}*"):
        if other != own:
            shutil.rmtree(other)
    paths = [*kept_files.whole(own)]
    tables = [kept_files.read(path, KEY.names) for path in paths]
    keys: Any = pa.concat_tables([pa.Table.from_batches([], KEY), *tables])
    ids = keys.column("interaction_id").combine_chunks().dictionary_encode().indices.to_numpy()
    keys = keys.append_column("place", pa.array(np.arange(len(keys))))
    is_once = np.bincount(ids, minlength=1)[ids] == 1
    return ParsedRows(own, paths, [*map(len, tables)], keys.filter(pa.array(is_once)))


def stage(con: Connection, workload_id: str, parsed: ParsedRows | None) -> None:
    """Build ``staging.texts``: parse the rows that are not kept, and keep them.

    Args:
        con: The warehouse, or a copy of the workload's rows, in which kept ones may lack the text.
        workload_id: The workload.
        parsed: What is kept; ``None`` parses all rows, and keeps none.
    """
    values = {"workload_id": workload_id}
    paths: Sequence[Path] = ()
    with warehouse.present(con, "kept", NO_KEYS if parsed is None else parsed.keys):
        con.execute(_MATCHED, values)
    if parsed is not None:
        states = _states(con, parsed)
        rows = con.sql(warehouse.model_select(MODEL), params=values)
        with rows.to_arrow_reader(kept_files.PART_ROWS) as batches:
            new = {
                kept_files.write(parsed.folder, pa.Table.from_batches([batch])): len(batch)
                for batch in batches
            }
        paths = _merged(parsed, states, new)
    if not paths:
        warehouse.build(con, MODEL, **values)
    show_texts(con, paths)
    con.execute("drop table matched")


def show_texts(con: Connection, paths: Iterable[Path | str]) -> None:
    """Show the rows of files as ``staging.texts``, without files those of ``staging.parsed``."""
    listed = ", ".join(f"'{warehouse.escaped(path)}'" for path in paths)
    rows_of = f"from read_parquet([{listed}], filename = true)"
    if not listed:
        rows_of = f"from {warehouse.model_table(MODEL)} select *, '' as filename"
    con.execute(f"create or replace view staging.texts as {rows_of}")


@contextmanager
def texts_of(con: Connection, named: str) -> Generator[None]:
    """Show in ``staging.texts``, in the block, only the files with rows of the table ``named``.

    New rows are in few files, and looking for them in all files reads all texts.
    """
    select_files = "select distinct filename from staging.texts"
    few = warehouse.texts(con, f"{select_files} semi join {named} using (interaction_id)")
    if few in ([], [""]):  # not in files
        yield
        return
    every = warehouse.texts(con, f"{select_files} order by filename")
    show_texts(con, few)
    yield
    show_texts(con, every)  # not after an error, which rolls it back


_MATCHED = """
    create or replace temporary table matched as
    select
        interactions.interaction_id,
        kept.place,
        kept.place is not null
        and (
            interactions.payload = ''
            or (
                interactions.file_digest = kept.file_digest
                and interactions.line = kept.line
                and interactions.content_hash is not distinct from kept.content_hash
                and md5(interactions.record) is not distinct from kept.record_digest
            )
        ) as is_kept
    from raw.interactions as interactions
    left join kept using (interaction_id)
    where interactions.workload_id = $workload_id
"""

GONE, CHANGED, KEPT = range(3)
"""What raw has of a kept row: nothing, its interaction with another text, or the row."""


def _states(con: Connection, parsed: ParsedRows) -> Sequence[Ints]:
    """Return what raw has of the rows of each file."""
    matched: Any = con.sql("select place, is_kept from matched where place is not null")
    matched = matched.to_arrow_table()
    states = np.full(sum(parsed.sizes), CHANGED)  # such as those that are there twice
    states[parsed.keys.column("place").to_numpy()] = GONE
    is_kept = matched.column("is_kept").to_numpy()
    states[matched.column("place").to_numpy()] = np.where(is_kept, KEPT, CHANGED)
    return np.split(states, np.cumsum(parsed.sizes))[:-1]


def _merged(parsed: ParsedRows, states: Sequence[Ints], new: dict[Path, int]) -> list[Path]:
    """Write the rows of small files into fewer, without rows that have changed.

    Return the files that are left. Rows that are gone stay: no interaction reads them.
    """
    marks = dict(zip(parsed.paths, states, strict=True))
    marks |= {path: np.full(rows, KEPT) for path, rows in new.items()}
    small = {
        path
        for path, of_rows in marks.items()
        if np.count_nonzero(of_rows == KEPT) < kept_files.PART_ROWS // 2
    }
    changed = {path for path, of_rows in marks.items() if (of_rows == CHANGED).any()}
    is_settled = len(small) <= 1 and not changed
    replaced = [] if is_settled else [path for path in marks if path in small | changed]
    tables = [kept_files.read(path).filter(pa.array(marks.pop(path) == KEPT)) for path in replaced]
    written: list[Path] = []
    if tables:
        written = [
            path for path, _ in kept_files.write_parts(parsed.folder, pa.concat_tables(tables))
        ]
    for path in {*replaced} - {*written}:
        path.unlink()
    return [*marks, *written]
