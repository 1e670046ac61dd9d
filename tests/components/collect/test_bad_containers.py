"""Bad content of a container costs only itself: the rest loads, and its bytes are in quarantine."""

import json
import os
import tracemalloc
from collections.abc import Sized
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.collect import files, places, record_batches
from components.collect.lines import LONGEST, Unreadable
from components.collect.source import Input, RejectedRecord, SourceRow
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs

LINES = [logs.interaction(f"Question {n}?", response_id=f"r{n}") for n in range(5)]
TEXTS = [json.dumps(line) for line in LINES]
JSONL = "".join(text + "\n" for text in TEXTS).encode()
DIGITS = b'{"timestamp": ' + b"1" * 5_000 + b"}"
DEEP = b'{"request": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LATIN = b'{"name": "caf\xe9, \\", [{"}'
BROKEN = b'{"text": "a\nb", "other": [1, 2}, 3]}'
SMILE = '{"messages": [{"role": "user", "content": "\\ud83d"}]}'
YEAR_33658 = 10**12


def array(*elements: bytes) -> bytes:
    return b"[" + b", ".join(elements) + b"]"


def quarantined(con: Connection) -> list[tuple[int, bytes]]:
    return con.execute("select line, content from raw.quarantine order by line").fetchall()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(DIGITS, id="too many digits"),
        pytest.param(DEEP, id="nested too deeply"),
        pytest.param(LATIN, id="not UTF-8"),
        pytest.param(b'{"text": "a\nb"}', id="a raw line break"),
        pytest.param(b'{"a": 1,}', id="a trailing comma"),
    ],
)
def test_a_bad_element_costs_an_array_only_itself(bad: bytes, con: Connection, tmp_path: Path):
    first, *rest = (text.encode() for text in TEXTS)
    (tmp_path / "a.json").write_bytes(array(first, bad, *rest, bad))
    loaded = logs.load_input(con, Input(str(tmp_path / "a.json")), now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (5, 2)
    assert quarantined(con) == [(2, bad), (7, bad)]


def test_an_array_is_lost_from_an_element_without_an_end_on(con: Connection, tmp_path: Path):
    content = array(TEXTS[0].encode(), BROKEN, TEXTS[1].encode())
    (tmp_path / "a.json").write_bytes(content)
    loaded = logs.load_input(con, Input(str(tmp_path / "a.json")), now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (1, 1)
    assert quarantined(con) == [(2, content[content.index(BROKEN) :])]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"[INFO] server started", id="a log's text"),
        pytest.param(b"[]", id="an empty array"),
        pytest.param(b"[2026-01-01 10:00:00] started", id="a time"),
        pytest.param(DIGITS, id="too many digits"),
        pytest.param(b"\0" * 4096, id="zeros of a truncated log"),
        pytest.param(b'{"object": "list", "d\\u0061ta": [1]}', id="a page of no object"),
    ],
)
def test_a_bad_first_line_costs_only_itself(first: bytes, con: Connection, tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(first + b"\n" + JSONL)
    loaded = logs.load_input(con, Input(str(tmp_path / "a.jsonl")), now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (5, 1)


def test_an_array_of_an_element_per_line_stays_an_array(con: Connection, tmp_path: Path):
    (tmp_path / "a.json").write_text("[" + "\n,".join(TEXTS) + "\n]\n")
    assert logs.load_input(con, Input(str(tmp_path / "a.json")), now=logs.NOW).new == 5


def test_a_page_yields_its_own_entries_not_those_of_a_nested_one(con: Connection, tmp_path: Path):
    page = {"object": "list", "meta": {"data": [1]}, "first": '"data": [', "data": LINES}
    (tmp_path / "a.json").write_text(json.dumps(page))
    loaded = logs.load_input(con, Input(str(tmp_path / "a.json")), now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (5, 0)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(pa.array([0, YEAR_33658, 0], pa.timestamp("s")), id="a time after 9999"),
        pytest.param(
            pa.array([b"a", b"caf\xe9", b"b"], pa.binary()).view(pa.string()), id="not UTF-8"
        ),
        pytest.param(pa.array(["", SMILE, ""]), id="half a surrogate pair"),
    ],
)
def test_a_bad_cell_costs_a_table_only_its_row(cells: Sized, con: Connection, tmp_path: Path):
    table = pa.Table.from_pylist(LINES[:3]).append_column("extra", cells)
    pq.write_table(table, tmp_path / "a.parquet")
    item = Input(str(tmp_path / "a.parquet"))
    loaded = logs.load_input(con, item, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (2, 1)
    ((line, content),) = quarantined(con)
    assert line == 2
    assert b"Question 1?" in content


def cells(path: Path) -> list[dict[str, Json] | str]:
    """Return the rows of a Parquet file, the reason instead of one that can't be read."""
    return [
        piece.reason if isinstance(piece, Unreadable) else json.loads(piece.text)
        for piece in files.read_pieces(path, "parquet")
    ]


def test_columns_of_one_name_must_agree_in_a_row(tmp_path: Path):
    columns = [pa.array([1, 2, None, 4]), pa.array(["a"] * 4), pa.array([1, None, 3, 5])]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays(columns, names=["n", "text", "n"]), path)
    assert cells(path) == [
        {"n": 1, "text": "a"},
        {"n": 2, "text": "a"},
        {"n": 3, "text": "a"},
        "the column n is there twice, with different cells",
    ]


def test_whole_decimals_keep_all_their_digits(tmp_path: Path):
    ids = [Decimal(2**53 + 1), Decimal("12345678901234567890")]
    table = {
        "id": pa.array(ids, pa.decimal128(38, 0)),
        "seconds": pa.array([Decimal("1760000000.25")] * 2, pa.decimal128(18, 2)),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert cells(tmp_path / "a.parquet") == [
        {"id": int(decimal), "seconds": 1_760_000_000.25} for decimal in ids
    ]


ROWS = 64
HUGE = "x" * 2**20


@pytest.mark.parametrize(
    "column",
    [
        pytest.param([f"{number} {HUGE}" for number in range(ROWS)], id="each-another"),
        pytest.param([HUGE + "x"] * ROWS, id="stored-once"),
        pytest.param(pa.array([HUGE + "x"] * ROWS, pa.large_string()), id="stored-once-and-large"),
        pytest.param(pa.array([HUGE + "x"] * ROWS, pa.string_view()), id="stored-once-as-views"),
        pytest.param(
            pa.array([[HUGE]] * ROWS, pa.list_view(pa.string())), id="stored-once-in-list-views"
        ),
        pytest.param(
            [[{"content": HUGE}, {"content": None}]] * ROWS,
            id="stored-once-and-nested",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            pa.array([[("content", HUGE)]] * ROWS, pa.map_(pa.string(), pa.string())),
            id="stored-once-in-maps",
        ),
    ],
)
def test_rows_with_huge_cells_are_not_all_in_memory(tmp_path: Path, column: Sized):
    size, rows = len(HUGE), ROWS
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    tracemalloc.start()
    for piece in files.read_pieces(tmp_path / "a.parquet", "parquet"):
        assert not isinstance(piece, Unreadable)
        assert len(piece.text) > size
    _, objects = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert objects < rows * size


def test_a_row_that_a_table_stores_in_little_and_that_is_huge_costs_only_itself(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"texts": [["a"], [HUGE] * 20, None, ["b", None]]}), path)
    assert cells(path) == [
        {"texts": ["a"]},
        "the row has 20971520 bytes, expected at most 16777216; they are not kept",
        {},
        {"texts": ["b", None]},
    ]


def test_a_row_of_very_many_numbers_is_no_million_objects(tmp_path: Path):
    numbers = pa.array(np.zeros(LONGEST + 2, np.int8))
    values = pa.StructArray.from_arrays([numbers], ["n"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, LONGEST + 2]), values)
    pq.write_table(pa.table({"numbers": lists}), tmp_path / "a.parquet")
    tracemalloc.start()
    first, second = cells(tmp_path / "a.parquet")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first == {"numbers": [{"n": 0}]}
    assert second == (
        f"the row has {LONGEST + 1} bytes, expected at most {LONGEST}; they are not kept"
    )
    assert most < 2 * LONGEST


def test_few_huge_refused_rows_are_batches_of_their_own():
    rows = (RejectedRecord(SourceRow(n, HUGE, {}), "no call") for n in range(40))
    batches = [*record_batches.batches_of_records(rows)]
    assert sum(len(batch.unreadable) for batch in batches) == 40
    most = max(sum(len(row.content) for row in batch.unreadable) for batch in batches)
    assert most < record_batches.BATCH_CHARACTERS + len(HUGE)


def test_a_file_is_found_by_its_name_with_brackets(tmp_path: Path):
    path = logs.write(tmp_path / "log [1].jsonl", LINES)
    assert places.matching_files(str(path)) == [str(path)]


def test_a_file_whose_name_is_not_utf_8_is_loaded_and_then_known(con: Connection, tmp_path: Path):
    logs.write(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), LINES)
    (place,) = places.matching_files(str(tmp_path / "*.jsonl"))
    assert logs.load_input(con, Input(place), now=logs.NOW).new == 5
    assert logs.load_input(con, Input(place), now=logs.NOW).skipped


@pytest.mark.slow
def test_a_file_without_a_record_is_not_held_in_memory(tmp_path: Path):
    path = tmp_path / "plain.log"
    path.write_text("a line of text\n" * 60_000)
    tracemalloc.start()
    try:
        assert files.first_rows(path, "lines") == []
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6 * 2**20  # a block's lines; an object for each line would be 17 MiB
