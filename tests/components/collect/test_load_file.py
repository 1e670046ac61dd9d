import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.collect import load_file
from components.collect.source import Input
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs, warehouses


def test_a_line_is_stored_verbatim_with_its_further_keys(con: Connection, tmp_path: Path):
    line = logs.interaction(metadata={"source": "x"}, trace=None)
    loaded = logs.load(con, logs.write(tmp_path / "a.jsonl.gz", [line]), now=logs.NOW)
    assert (loaded.new, loaded.known, loaded.quarantined, loaded.skipped) == (1, 0, 0, False)
    (row,) = warehouse.rows(
        con, "from raw.interactions inner join raw.contents using (interaction_id)"
    )
    assert json.loads(str(row["payload"])) == line
    assert json.loads(str(row["request"])) == line["request"]
    assert json.loads(str(row["response"])) == line["response"]
    assert json.loads(str(row["extra"])) == {"metadata": {"source": "x"}, "trace": None}
    assert (row["workload_id"], row["client_id"], row["line"]) == ("weather", "app", 1)


@pytest.mark.parametrize(
    ("timestamp", "stored"),
    [
        pytest.param(1_760_000_000, "2025-10-09 08:53:20+00", id="seconds"),
        pytest.param(1_760_000_000.25, "2025-10-09 08:53:20.25+00", id="fractions"),
        pytest.param("2025-10-09T10:53:20+02:00", "2025-10-09 08:53:20+00", id="offset"),
        pytest.param("2025-10-09T08:53:20", "2025-10-09 08:53:20+00", id="no-offset-is-utc"),
    ],
)
def test_timestamps_are_seconds_or_iso_text(
    con: Connection, tmp_path: Path, timestamp: Json, stored: str
):
    line = logs.interaction(timestamp=timestamp)
    logs.load(con, logs.write(tmp_path / "a.jsonl", [line]), now=logs.NOW)
    assert con.execute("select timestamp::varchar from raw.interactions").fetchall() == [(stored,)]


def test_a_file_of_equal_content_is_skipped_and_equal_rows_are_stored_once(
    con: Connection, tmp_path: Path
):
    lines = [logs.interaction(response_id=f"r{n}") for n in range(10)]
    first = logs.load(con, logs.write(tmp_path / "a.jsonl", lines), now=logs.NOW)
    again = logs.load(con, logs.write(tmp_path / "b.jsonl", lines), now=logs.NOW)
    more = [*lines, logs.interaction(response_id="new"), logs.interaction(response_id="new")]
    grown = logs.load(con, logs.write(tmp_path / "a.jsonl.gz", more), now=logs.NOW)
    assert (first.new, first.known, first.skipped) == (10, 0, False)
    assert (again.new, again.known, again.skipped) == (0, 10, True)
    assert (grown.new, grown.known, grown.skipped) == (1, 11, False)
    assert con.execute("select count(*) from raw.interactions").fetchall() == [(11,)]


def test_the_last_load_of_a_place_is_found_whatever_its_address_has(
    con: Connection, tmp_path: Path
):
    path = logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    traces = Input("mlflow:shop at https://ann:word@shop.example", "fivekey")
    load_file.load(con, traces, path, now=logs.NOW)
    assert load_file.last_load(con, traces) == logs.NOW


def test_a_packed_copy_under_another_name_is_skipped(con: Connection, tmp_path: Path):
    lines = [logs.interaction(response_id=f"r{n}") for n in range(10)]
    packed = logs.write(tmp_path / "a.jsonl.gz", lines)
    assert logs.load(con, packed, now=logs.NOW).new == 10
    copied = logs.load(con, packed.rename(tmp_path / "b.jsonl.gz"), now=logs.NOW)
    assert (copied.new, copied.known, copied.skipped) == (0, 10, True)
    assert con.execute("select count(*) from raw.files").fetchall() == [(1,)]


def test_an_id_is_the_digest_of_an_interactions_content(con: Connection, tmp_path: Path):
    line = logs.interaction("Straße?", timestamp=1_760_000_000.25, metadata={"further": "key"})
    logs.load(con, logs.write(tmp_path / "a.jsonl", [line]), now=logs.NOW)
    parts = [line[name] for name in ("workload_id", "client_id", "request", "response")]
    texts = [json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in parts]
    digest = hashlib.md5("\n".join(["1760000000250000", *texts]).encode()).hexdigest()
    assert con.execute("select interaction_id from raw.interactions").fetchall() == [(digest,)]


@pytest.mark.slow
@warehouses.only_a_file("its write-ahead log")
def test_a_large_load_bypasses_the_write_ahead_log(tmp_path: Path):
    count, store = 12_000, tmp_path / "warehouse.duckdb"
    path = logs.write(
        tmp_path / "a.jsonl",
        (logs.interaction("x" * 1500, response_id=f"r{n}") for n in range(count)),
    )
    with warehouse.connect(store) as con:
        assert logs.load(con, path, now=logs.NOW).new == count
        shutil.copy(store, tmp_path / "copy.duckdb")
    with warehouse.connect(tmp_path / "copy.duckdb") as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(count,)]


def test_white_space_does_not_make_another_interaction(con: Connection, tmp_path: Path):
    line = logs.interaction()
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps(line, separators=(",", ":")) + "\n")
    assert logs.load(con, path, now=logs.NOW).new == 1


BAD: list[tuple[bytes | dict[str, Json], str]] = [
    (b"{oops", "the line is not JSON"),
    (b"[1, 2]", "the line is a JSON ARRAY, expected an object"),
    (b'"text"', "the line is a JSON VARCHAR, expected an object"),
    ({"x": 1}, "missing keys: timestamp, workload_id, client_id, request, response"),
    (logs.without(logs.interaction(), "client_id"), "missing keys: client_id"),
    (
        logs.interaction(timestamp=True),
        "`timestamp` is BOOLEAN, expected unix seconds or ISO 8601 text",
    ),
    (
        logs.interaction(timestamp="yesterday"),
        '`timestamp` "yesterday" is not a time, expected unix seconds or ISO 8601 text',
    ),
    (
        logs.interaction(timestamp=1_760_000_000_000),
        "`timestamp` 1760000000000 lies more than a day in the future; expected unix seconds, "
        "not milliseconds",
    ),
    (
        logs.interaction(timestamp="2026-01-02T00:00:01Z"),
        '`timestamp` "2026-01-02T00:00:01Z" lies more than a day in the future; expected unix '
        "seconds, not milliseconds",
    ),
    (logs.interaction(timestamp=-1), "`timestamp` -1 lies before 1970"),
    (logs.interaction(workload_id=7), "`workload_id` is UBIGINT, expected text"),
    (logs.interaction(workload_id=" "), "`workload_id` is empty"),
    (logs.interaction(client_id=None), "`client_id` is NULL, expected text"),
    (logs.interaction(request=[]), "`request` is ARRAY, expected an object"),
    (logs.interaction(request={}), "`request.messages` is missing, expected an array"),
    (
        logs.interaction(request={"messages": "hi"}),
        "`request.messages` is VARCHAR, expected an array",
    ),
    (logs.interaction(response="hi"), "`response` is VARCHAR, expected an object"),
    (b'{"a": "\xff"}', "the line is not UTF-8: byte 0xff at 7"),
]
"""Bad lines with the reason of each."""


def test_a_bad_line_goes_to_quarantine_with_its_bytes_place_and_reason(
    con: Connection, tmp_path: Path
):
    contents = [line if isinstance(line, bytes) else json.dumps(line).encode() for line, _ in BAD]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([json.dumps(logs.interaction()).encode(), *contents, b""]))
    loaded = logs.load(con, path, now=logs.NOW)
    rows = warehouse.rows(con, "select * from raw.quarantine order by line")
    for place, (row, content, (_, reason)) in enumerate(zip(rows, contents, BAD, strict=True), 2):
        assert row["reason"] == reason
        assert isinstance(row["content"], bytes)
        assert row["content"].rstrip(b"\n") == content
        assert (row["path"], row["line"]) == (str(path), place)
    assert (loaded.new, loaded.quarantined) == (1, len(BAD))


def test_half_broken_files_lose_no_good_line(con: Connection, tmp_path: Path):
    good = [json.dumps(logs.interaction(response_id=f"r{n}")).encode() for n in range(4)]
    broken = tmp_path / "broken.jsonl"
    bad = [b"\xfe\xff", b'{"x": "' + b"y" * (50 * 2**20) + b'"}', b"3", b"{}"]
    broken.write_bytes(b"\n".join(part for pair in zip(good, bad, strict=True) for part in pair))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b"\n".join([*good, b'{"no": "end"}']))[:-12])
    first = logs.load(con, broken, now=logs.NOW)
    second = logs.load(con, cut, now=logs.NOW)
    assert (first.new, first.quarantined) == (4, 4)
    assert (second.new, second.known, second.quarantined) == (0, 4, 1)
    places = con.execute(
        "select parse_filename(path), line from raw.quarantine order by all"
    ).fetchall()
    assert places == [("broken.jsonl", n) for n in (2, 4, 6, 8)] + [("cut.jsonl.gz", 5)]


@pytest.mark.slow
def test_a_load_that_is_killed_leaves_nothing_and_the_next_one_loads_every_row_once(tmp_path: Path):
    path = tmp_path / "big.jsonl"
    count = 30_000
    logs.write(path, (logs.interaction("x" * 1500, response_id=f"r{n}") for n in range(count)))
    store = tmp_path / "warehouse.duckdb"
    warehouses.location(store)
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from tests.support import logs, warehouses\n"
        "with warehouses.connect(Path(sys.argv[1])) as con:\n"
        "    print('begins', flush=True)\n"
        "    logs.load(con, Path(sys.argv[2]), now=datetime.now(UTC))\n"
    )
    loader = subprocess.Popen(
        [sys.executable, "-c", code, store, path], stdout=subprocess.PIPE, text=True
    )
    assert loader.stdout is not None
    assert loader.stdout.readline() == "begins\n"
    time.sleep(0.2)  # 50 MB take longer to load
    assert loader.poll() is None
    os.kill(loader.pid, signal.SIGKILL)
    loader.wait()
    with warehouses.connect(store) as con:
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(0,)]
        assert con.execute("select count(*) from raw.files").fetchall() == [(0,)]
        assert logs.load(con, path, now=logs.NOW).new == count
        assert con.execute("select count(*) from raw.interactions").fetchall() == [(count,)]
