import gzip
import json
from pathlib import Path

import pytest

from components.collect.source import Defaults, Input, Kind, Source
from components.collect.sources.fivekey import export
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs, warehouses
from tests.support.samples import SAMPLES, SOURCES, of_its_own_span

DEFAULTS = Defaults(workload_id="support", client_id="shop")
INTERACTIONS = (
    "select interaction_id, timestamp::varchar, workload_id, client_id, "
    "json(coalesce(record, payload))::varchar from raw.interactions order by all"
)
FEEDBACK = (
    "select feedback_id, timestamp::varchar, workload_id, client_id, response_id, "
    "conversation_id, target_id, actor_id, kind, json(coalesce(record, payload))::varchar "
    "from raw.feedback order by all"
)


def stored(con: Connection) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the canonical columns of a warehouse."""
    return con.execute(INTERACTIONS).fetchall(), con.execute(FEEDBACK).fetchall()


def copied(con: Connection, folder: Path) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Export everything, load it into another warehouse, and return its rows."""
    kinds: tuple[Kind, ...] = ("interactions", "feedback")
    for kind in kinds:
        export(con, folder / f"{kind}.jsonl", kind)
    with warehouses.connect(folder / "copy.duckdb") as copy:
        for kind in kinds:
            item = Input(str(folder / f"{kind}.jsonl"), kind=kind)
            assert logs.load_input(copy, item, now=logs.NOW).quarantined == 0
        return stored(copy)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.NAME)
@pytest.mark.slow
def test_records_of_any_source_are_the_same_after_export_and_load(source: Source, tmp_path: Path):
    values = [value for its, value in SAMPLES if its is source]
    own = (of_its_own_span(value, n) for n, value in enumerate(values))
    file = logs.write(tmp_path / "traffic.jsonl", own)
    with warehouses.connect(tmp_path / "first.duckdb") as con:
        loaded = logs.load_input(con, Input(str(file), defaults=DEFAULTS), now=logs.NOW)
        assert (loaded.source, loaded.quarantined) == (source.NAME, 0)
        interactions, feedback = stored(con)
        assert len(interactions) + len(feedback) == loaded.new > 0
        assert copied(con, tmp_path) == (interactions, feedback)


def test_odd_but_good_lines_keep_their_ids(tmp_path: Path):
    odd: list[Json] = [0, 1e22, 123456789012345678901234567890, 0.1, "\u2028", "a\nb", {"": None}]
    lines = [logs.interaction(response_id=f"r{n}", odd=value) for n, value in enumerate(odd)]
    lines.append(logs.interaction(timestamp=1_760_000_000.25, metadata={"ä": "\U0001f600"}))
    with warehouses.connect(tmp_path / "first.duckdb") as con:
        item = Input(str(logs.write(tmp_path / "a.jsonl.gz", lines)))
        assert logs.load_input(con, item, now=logs.NOW).new == len(lines)
        assert copied(con, tmp_path) == stored(con)


def test_one_workload_is_exported_in_time_order_and_compressed_by_file_name(
    tmp_path: Path,
):
    lines = [
        logs.interaction(response_id=f"r{n}", timestamp=1_760_000_000 - n, workload_id=workload)
        for n, workload in enumerate(("a", "b", "a"))
    ]
    file = tmp_path / "out" / "a.jsonl.gz"
    with warehouses.connect(tmp_path / "first.duckdb") as con:
        logs.load_input(con, Input(str(logs.write(tmp_path / "a.jsonl", lines))), now=logs.NOW)
        assert export(con, file, "interactions", workload_id="a") == 2
        assert export(con, tmp_path / "none.jsonl", "feedback") == 0
    text = gzip.decompress(file.read_bytes()).decode()
    assert [json.loads(line) for line in text.splitlines()] == [lines[2], lines[0]]
    assert (tmp_path / "none.jsonl").read_text() == ""
    assert list(file.parent.iterdir()) == [file]
