"""What is in a row of raw is read once: a copy needs no text of a row that was parsed before."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.curate import curate_workload, kept_files, parsed_rows
from components.curate.settings import Redaction, Rules
from components.store import warehouse, working_copy
from components.store.warehouse import Connection, Location
from tests.support import logs, warehouses

RULES = Rules(holdout_share=0.4, split_by="conversation", redaction=Redaction(seed=1))
TABLES = ("examples", "verdicts", "standings", "labels", "preferences", "fates")


def load(path: Location, folder: Path, numbers: range) -> None:
    lines = [
        logs.interaction(
            f"Question {n}: is it {n * n} or {n * n + 1}, and why not {n * 7}?",
            response_id=f"r{n}",
            message=logs.say(f"It is {n}, as one sees at once from table {n * 3}."),
            metadata={"acceptable": [n]} if n % 3 else {},
            conversation_id=f"talk-{n // 2}",
        )
        for n in numbers
    ]
    words = [logs.feedback("correction", logs.say(f"Rather {n}."), response_id=f"r{n}")
             for n in numbers if n % 4 == 0]  # fmt: skip
    with warehouses.connect(path) as con:
        logs.load(con, logs.write(folder / f"{numbers.start}.jsonl", lines), now=logs.NOW)
        logs.load_feedback(con, logs.write(folder / "words.jsonl", words), now=logs.NOW)


def curated(path: Location, folder: Path, kept: Path | None) -> dict[str, list[warehouse.Row]]:
    """Curate in a copy, without the texts that are kept; return its tables."""
    parsed = kept and parsed_rows.read(kept)
    with working_copy.open_copy(
        path, "weather", folder / "tmp", parsed=parsed and parsed.keys
    ) as copy:
        curate_workload.curate(
            copy.con, "weather", RULES, now=logs.NOW, judgements_folder=kept, parsed=parsed
        )
        return {name: rows(copy.con, name) for name in TABLES}


def rows(con: Connection, table: str) -> list[warehouse.Row]:
    return warehouse.rows(con, f"from curated.{table} order by all")


def texts(path: Location, folder: Path, kept: Path) -> int:
    """Return the number of texts that a copy has."""
    keys = parsed_rows.read(kept).keys
    with working_copy.open_copy(path, "weather", folder / "tmp", parsed=keys) as copy:
        sql = "select count(*) from raw.interactions where payload <> '' or record is not null"
        ((copied,),) = copy.con.execute(sql).fetchall()
    return copied


def test_a_copy_has_only_new_texts_and_is_curated_as_one_with_all(tmp_path: Path):
    path, kept = warehouses.location(tmp_path / "warehouse.duckdb"), tmp_path / "kept"
    load(path, tmp_path, range(20))
    assert texts(path, tmp_path, kept) == 20
    curated(path, tmp_path, kept)
    assert texts(path, tmp_path, kept) == 0
    load(path, tmp_path, range(20, 25))
    assert texts(path, tmp_path, kept) == 5
    assert curated(path, tmp_path, kept) == curated(path, tmp_path, None)
    assert texts(path, tmp_path, kept) == 0


@pytest.mark.slow
def test_a_record_that_was_written_again_is_read_again(tmp_path: Path):
    path, kept = warehouses.location(tmp_path / "warehouse.duckdb"), tmp_path / "kept"
    load(path, tmp_path, range(10))
    for expected in (0, 1):  # the first record, and another one
        curated(path, tmp_path, kept)
        assert texts(path, tmp_path, kept) == 0
        record = logs.interaction("Rather this?", response_id="r3", user_id=f"user {expected}")
        with warehouses.connect(path) as con:
            changed = "update raw.interactions set record = $record where payload like '%\"r3\"%'"
            con.execute(changed, {"record": json.dumps(record)})
        assert texts(path, tmp_path, kept) == 1
        assert curated(path, tmp_path, kept) == curated(path, tmp_path, None)
    assert "Rather this?" in str(contents(kept))
    assert "Question 3:" not in str(contents(kept))


@pytest.mark.slow
def test_rows_that_a_killed_curation_wrote_twice_are_one(tmp_path: Path):
    path, kept = warehouses.location(tmp_path / "warehouse.duckdb"), tmp_path / "kept"
    load(path, tmp_path, range(10))
    whole = curated(path, tmp_path, kept)
    (file,) = kept.glob(f"{parsed_rows.PREFIX}*/*")
    kept_files.write(file.parent, pq.read_table(file).slice(2, 5))
    assert texts(path, tmp_path, kept) == 5
    assert curated(path, tmp_path, kept) == whole
    assert len(contents(kept)) == 10


def test_what_another_version_kept_is_deleted(tmp_path: Path):
    path, kept = warehouses.location(tmp_path / "warehouse.duckdb"), tmp_path / "kept"
    load(path, tmp_path, range(10))
    whole = curated(path, tmp_path, kept)
    (folder,) = kept.glob(f"{parsed_rows.PREFIX}*")
    folder.rename(kept / f"{parsed_rows.PREFIX}other")
    assert curated(path, tmp_path, kept) == whole
    assert [*kept.glob(f"{parsed_rows.PREFIX}*")] == [folder]


def test_a_text_that_is_gone_ends_the_curation(tmp_path: Path):
    path, kept = warehouses.location(tmp_path / "warehouse.duckdb"), tmp_path / "kept"
    load(path, tmp_path, range(10))
    curated(path, tmp_path, kept)
    keys = parsed_rows.read(kept).keys
    with (
        working_copy.open_copy(path, "weather", tmp_path / "tmp", parsed=keys) as copy,
        pytest.raises(duckdb.InvalidInputException, match="Malformed JSON"),
    ):
        curate_workload.curate(copy.con, "weather", RULES, now=logs.NOW)


def test_texts_of_few_rows_are_those_of_their_files(tmp_path: Path):
    files = [
        kept_files.write(tmp_path, pa.table({"interaction_id": ids})) for ids in (["a", "b"], ["c"])
    ]
    with duckdb.connect() as con:
        con.execute("create schema staging")
        parsed_rows.show_texts(con, files)
        for named, expected in ((["b"], ["a", "b"]), (["b", "c"], ["a", "b", "c"]), (["x"], "abc")):
            with (
                warehouse.present(con, "named", {"interaction_id": named}),
                parsed_rows.texts_of(con, "named"),
            ):
                assert ids_of_texts(con) == [*expected]
            assert ids_of_texts(con) == ["a", "b", "c"]


def ids_of_texts(con: Connection) -> list[str]:
    return warehouse.texts(con, "select interaction_id from staging.texts order by all")


def contents(kept: Path) -> list[dict[str, object]]:
    files = sorted(kept.glob(f"{parsed_rows.PREFIX}*/*"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]
