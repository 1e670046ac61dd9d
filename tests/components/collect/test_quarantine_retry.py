"""Retry of quarantined lines: readable lines are loaded, the rest stays."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from components.collect import quarantine
from components.collect.quarantine import Retried
from components.collect.source import Defaults, Input
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs

EARLIER = logs.NOW - timedelta(days=365)
NEXT_YEAR = logs.interaction(timestamp="2025-12-24T00:00:00Z", response_id="early")


def retry(con: Connection, source: str | None = None) -> Retried:
    parts = quarantine.retriable(con, source)
    return sum((quarantine.retry(con, ids, now=logs.NOW) for ids in parts), Retried(0, 0, 0, 0))


def test_lines_that_became_readable_are_loaded_with_their_old_place(
    con: Connection, tmp_path: Path
):
    path = logs.write(tmp_path / "log.jsonl", [NEXT_YEAR, {"x": 1}, logs.interaction(response={})])
    path.write_bytes(path.read_bytes() + b'{"cut": "\xff\n')
    first = logs.load(con, path, now=EARLIER)
    assert (first.new, first.quarantined) == (0, 4)
    retried = retry(con)
    assert (retried.lines, retried.new, retried.known, retried.quarantined) == (4, 2, 0, 2)
    refused = warehouse.rows(con, "select line, path, reason from raw.quarantine order by line")
    assert [(row["line"], row["path"]) for row in refused] == [(2, str(path)), (4, str(path))]
    rows = warehouse.rows(con, "select line, payload from raw.interactions order by line")
    assert [row["line"] for row in rows] == [1, 3]
    assert json.loads(str(rows[0]["payload"])) == NEXT_YEAR
    again = retry(con)
    assert (again.lines, again.new, again.quarantined) == (2, 0, 2)


def test_only_lines_of_the_named_source_are_retried(con: Connection, tmp_path: Path):
    logs.load(con, logs.write(tmp_path / "log.jsonl", [NEXT_YEAR]), now=EARLIER)
    assert retry(con, "feedback").lines == 0
    assert retry(con, "fivekey").new == 1


def test_many_files_lines_are_retried_in_parts_of_whole_files(con: Connection):
    con.execute(
        "insert into raw.quarantine"
        " select md5(range::varchar), '/log', md5((range // 2)::varchar), range, 'not JSON',"
        " '{'::blob, $now, 'fivekey', '', '' from range(2 * $files + 2)",
        {"now": EARLIER, "files": quarantine.FILES_AT_ONCE},
    )
    parts = quarantine.retriable(con, None)
    assert [len(part) for part in parts] == [2 * quarantine.FILES_AT_ONCE, 2]
    (of_one,) = con.execute(
        "select count(distinct file_digest) from raw.quarantine"
        " where quarantine_id in (select unnest($ids))",
        {"ids": parts[1]},
    ).fetchall()
    assert of_one == (1,)
    assert quarantine.retry(con, parts[1], now=logs.NOW) == Retried(2, 0, 0, 2)


def test_a_line_is_retried_with_its_original_defaults(con: Connection, tmp_path: Path):
    line = {key: value for key, value in NEXT_YEAR.items() if key != "client_id"}
    item = Input(
        str(logs.write(tmp_path / "log.jsonl", [line])), "fivekey", defaults=Defaults("", "mine")
    )
    assert logs.load_input(con, item, now=EARLIER).quarantined == 1
    assert retry(con).new == 1
    (row,) = warehouse.rows(con, "select client_id, payload from raw.interactions")
    assert row["client_id"] == "mine"
    assert json.loads(str(row["payload"])) == line


def test_quarantine_is_counted_by_reason_and_a_line_found_by_its_id(
    con: Connection, tmp_path: Path
):
    path = logs.write(tmp_path / "log.jsonl", [{"x": 1}, {"x": 2}, logs.interaction(client_id=3)])
    logs.load(con, path, now=logs.NOW)
    first, second = quarantine.groups(con)
    assert (first.line_count, first.source, first.path) == (2, "fivekey", str(path))
    assert second.reason == "`client_id` is UBIGINT, expected text"
    line = quarantine.find(con, second.first_id[:8])
    assert (line.line, json.loads(line.content)) == (3, logs.interaction(client_id=3))
    with pytest.raises(LookupError, match="3 lines in quarantine have an id that begins with ''"):
        quarantine.find(con, "")


def test_fields_that_come_after_a_sources_first_file_are_reported(con: Connection, tmp_path: Path):
    logs.load(con, logs.write(tmp_path / "a.jsonl", [logs.interaction()]), now=logs.NOW)
    request: dict[str, Json] = {"messages": [{"role": "user", "content": "Hi"}], "seed": 1}
    path = logs.write(tmp_path / "b.jsonl", [logs.interaction(request=request, session="s")])
    loaded = logs.load(con, path, now=logs.NOW)
    assert loaded.new_fields == ("request.seed", "session")


def test_a_field_that_comes_in_the_middle_of_a_long_log_is_reported(
    con: Connection, tmp_path: Path
):
    plain = [logs.interaction(response_id=f"r{n}") for n in range(1200)]
    logs.load(con, logs.write(tmp_path / "a.jsonl", plain[:1]), now=logs.NOW)
    later = [logs.interaction(response_id=f"s{n}", session="s") for n in range(800)]
    path = logs.write(tmp_path / "b.jsonl", [*plain, *later])
    assert logs.load(con, path, now=logs.NOW).new_fields == ("session",)


def test_an_object_over_several_lines_is_retried(con: Connection, tmp_path: Path):
    (tmp_path / "log.json").write_text(json.dumps([NEXT_YEAR], indent=2))
    assert logs.load_input(con, Input(str(tmp_path / "log.json")), now=EARLIER).quarantined == 1
    assert retry(con).new == 1
