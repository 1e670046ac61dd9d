"""A log that grows while it is collected: only its new part is read."""

import gzip
import hashlib
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from components.collect import growth, load_file
from components.collect.load_file import Loaded
from components.collect.source import Defaults, Input
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection, Row
from tests.support import logs, telemetry, warehouses
from tests.support.cases import cases

NOT_JSON = "the line is not JSON"


def text(*numbers: int) -> str:
    lines = [logs.interaction(f"Frage {n}, Straße?", response_id=f"r{n}") for n in numbers]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def collect(con: Connection, path: Path, hour: int = 0) -> Loaded:
    return logs.load_input(con, Input(str(path)), now=logs.NOW + timedelta(hours=hour))


def counts(loaded: Loaded) -> tuple[int, int, int]:
    return loaded.new, loaded.known, loaded.quarantined


def append(path: Path, more: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(more.encode() if isinstance(more, str) else more)


def quarantined(con: Connection) -> list[Row]:
    return warehouse.rows(con, "select line, reason from raw.quarantine order by all")


def test_lines_written_while_a_log_is_hashed_do_not_count_as_read(tmp_path: Path):
    path = tmp_path / "app.log"
    path.write_text(text(1, 2))
    before = path.stat().st_size
    append(path, text(3))
    measured = growth.measure_progress(path, before, None, can_grow=True)
    assert measured.digest == hashlib.sha256(text(1, 2).encode()).hexdigest()
    assert measured.size == before


def test_a_grown_log_counts_only_its_new_rows(con: Connection, tmp_path: Path):
    path = tmp_path / "app.log"
    path.write_text(text(1, 2) + "oops\n")
    assert counts(collect(con, path)) == (2, 0, 1)
    append(path, text(3) + '{"x": 1}\n')
    assert counts(collect(con, path)) == (1, 0, 1)
    append(path, text(4, 1))
    assert counts(collect(con, path)) == (1, 1, 0)
    again = collect(con, path)
    assert (again.skipped, again.known) == (True, 5)
    places = warehouse.rows(con, "select line from raw.interactions order by all")
    assert [row["line"] for row in places] == [1, 2, 4, 6]
    assert [(row["line"], str(row["reason"])[:20]) for row in quarantined(con)] == [
        (3, NOT_JSON),
        (5, "missing keys: timest"),
    ]


def test_a_line_that_was_half_written_is_read_when_it_is_whole(con: Connection, tmp_path: Path):
    path = tmp_path / "app.log"
    half = text(2).encode()
    path.write_bytes(text(1).encode() + half[: half.index("ß".encode()) + 1])
    assert counts(collect(con, path)) == (1, 0, 1)
    assert [row["line"] for row in quarantined(con)] == [2]
    append(path, half[half.index("ß".encode()) + 1 :])
    assert counts(collect(con, path)) == (1, 0, 0)
    assert quarantined(con) == []


def test_a_last_line_without_its_break_is_loaded_at_once_and_stays(con: Connection, tmp_path: Path):
    path = tmp_path / "app.log"
    path.write_text(text(1, 2).rstrip("\n"))
    assert counts(collect(con, path)) == (2, 0, 0)
    append(path, "\n" + text(3))
    assert counts(collect(con, path)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("now", "counted"),
    [
        pytest.param(text(7, 8, 9), (3, 0, 0), id="rotated"),
        pytest.param(text(1), (0, 1, 0), id="cut"),
        pytest.param(text(2, 1, 3), (1, 2, 0), id="rewritten"),
        pytest.param(" " + text(1, 2, 3), (1, 2, 0), id="one-byte-before"),
    ],
)
def test_another_file_of_the_same_name_is_read_whole(
    con: Connection, tmp_path: Path, now: str, counted: tuple[int, int, int]
):
    path = tmp_path / "app.log"
    path.write_text(text(1, 2))
    collect(con, path, hour=0)
    path.write_text(now)
    assert counts(collect(con, path, hour=1)) == counted
    append(path, text(50))
    assert counts(collect(con, path, hour=2)) == (1, 0, 0)


def test_a_packed_log_is_read_whole_when_it_grew(con: Connection, tmp_path: Path):
    path = tmp_path / "app.log.gz"
    path.write_bytes(gzip.compress(text(1, 2).encode()))
    collect(con, path)
    append(path, gzip.compress(text(3).encode()))
    assert counts(collect(con, path)) == (1, 2, 0)


def test_a_log_named_with_another_client_is_read_from_its_beginning(
    con: Connection, tmp_path: Path
):
    lines = [{"request": {"messages": []}, "response": {}, "timestamp": n} for n in (1, 2)]
    path = tmp_path / "app.log"
    path.write_text(json.dumps(lines[0]) + "\n")

    def collect_for(client: str) -> Loaded:
        item = Input(str(path), source="fivekey", defaults=Defaults("w", client))
        return logs.load_input(con, item, now=logs.NOW)

    assert counts(collect_for("a")) == (1, 0, 0)
    append(path, json.dumps(lines[1]) + "\n")
    assert counts(collect_for("b")) == (2, 0, 0)
    assert counts(collect_for("a")) == (1, 0, 0)


def test_a_trace_whose_log_records_were_appended_is_joined(con: Connection, tmp_path: Path):
    events: list[telemetry.Event] = [
        ("gen_ai.user.message", {"content": "Hello?"}),
        ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": "Hi."}}),
    ]
    span, records = map(telemetry.json_form, telemetry.logs_of_a_span(*events))
    path = logs.write(tmp_path / "otlp.jsonl", [span])
    item = Input(str(path), defaults=Defaults("support", "shop"))
    now = datetime.now(UTC)  # the SDK reads the clock
    assert counts(logs.load_input(con, item, now=now)) == (0, 0, 1)
    append(path, json.dumps(records) + "\n")
    assert counts(logs.load_input(con, item, now=now)) == (1, 0, 0)


def test_a_dry_run_shows_what_is_new(con: Connection, tmp_path: Path):
    path = tmp_path / "app.log"
    path.write_text(text(1, 2))
    collect(con, path)
    append(path, text(3))
    rehearsed = load_file.load(
        con, Input(str(path)), path, now=logs.NOW, within=warehouse.rehearsal, with_samples=True
    )
    assert counts(rehearsed) == (1, 0, 0)
    (sample,) = [json.loads(record) for record in rehearsed.samples]
    assert sample["response"]["id"] == "r3"


BAD: list[Json] = ["oops", {"x": 1}, "größer"]
LINES = st.lists(st.integers(1, 5) | st.sampled_from(BAD), max_size=8)


def held(con: Connection) -> list[list[Row]]:
    """Return the loaded rows, and delete them."""
    sqls = (
        "select payload, line from raw.interactions order by all",
        "select line, reason, content from raw.quarantine order by all",
    )
    rows = [warehouse.rows(con, sql) for sql in sqls]
    for table in ("interactions", "quarantine", "files", "fields"):
        con.execute(f"delete from raw.{table}")
    return rows


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    with warehouses.connect(tmp_path_factory.mktemp("shared") / "warehouse.duckdb") as con:
        yield con


@cases(25)
@given(written=LINES, shares=st.lists(st.floats(0, 1), max_size=4), ends=st.booleans())
def test_loading_a_growing_file_at_any_point_ends_in_the_same_warehouse(
    shared: Connection, written: list[Json], shares: list[float], ends: bool
):
    parts = [text(n) if isinstance(n, int) else f"{n}\n" for n in written]
    content = "".join(parts).encode()
    content = content if ends else content.removesuffix(b"\n")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "app.log"
        for hour, share in enumerate(sorted(shares)):
            path.write_bytes(content[: int(share * len(content))])
            collect(shared, path, hour)
        path.write_bytes(content)
        collect(shared, path, len(shares))
        grown = held(shared)
        collect(shared, path)
        assert grown == held(shared)


def array(*numbers: int) -> str:
    return f"[{','.join(text(*numbers).split(chr(10))[:-1])}]"


WHOLE = {
    "gzip": gzip.compress(text(*range(50)).encode()),
    "zstd": zstandard.compress(text(*range(50)).encode()),
    "array": array(*range(50)).encode(),
}


@pytest.mark.parametrize("part", [0.5, 0.99])
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
def test_what_was_cut_off_leaves_quarantine_once_the_file_is_whole(
    con: Connection, tmp_path: Path, whole: bytes, part: float
):
    path = tmp_path / "export"
    path.write_bytes(whole[: int(len(whole) * part)])
    assert collect(con, path).quarantined == 1
    path.write_bytes(whole)
    collect(con, path, hour=1)
    assert quarantined(con) == []
    assert con.execute("select count(*) from raw.interactions").fetchall() == [(50,)]


@pytest.mark.parametrize(
    "other", [array(*range(3, 9)), array(0, 1, *range(3, 9))], ids=["all-new", "goes-on-otherwise"]
)
def test_what_was_cut_off_stays_in_quarantine_if_another_file_takes_its_place(
    con: Connection, tmp_path: Path, other: str
):
    path = tmp_path / "export"
    path.write_text(array(0, 1, 2)[:-20])
    assert collect(con, path).new == 2
    (cut,) = quarantined(con)
    path.write_text(other)
    collect(con, path, hour=1)
    assert quarantined(con) == [cut]
