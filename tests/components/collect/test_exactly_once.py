"""Loads in any order, any number of times, killed at any moment, end in the same warehouse."""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from components.collect import load_file
from components.collect.record_batches import RecordOrigin
from components.collect.source import Input, ParsedRecord, SourceRow
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Location
from tests.support import forking, logs, warehouses
from tests.support.cases import cases

Line = dict[str, Json]

GOOD: list[Line] = [logs.interaction(f"Question {n}?", response_id=f"r{n}") for n in range(6)]
SIGNALS: list[Line] = [logs.feedback(response_id=f"r{n}") for n in range(4)]
BAD: Line = {"response": "of nothing"}


@dataclass(frozen=True)
class Step:
    """A load of one file, killed after ``killed_after`` milliseconds unless ``None``."""

    file: int
    killed_after: int | None


LOGS = st.lists(st.sampled_from([*GOOD, BAD]), min_size=1, max_size=8)
VOTES = st.lists(st.sampled_from([*SIGNALS, BAD | {"kind": "thumb"}]), min_size=1, max_size=5)
FILES = st.lists(LOGS | VOTES, min_size=1, max_size=4)
STEPS = st.lists(
    st.builds(Step, st.integers(0, 3), st.none() | st.integers(0, 120)), min_size=1, max_size=6
)


def load(store: Location, path: Path, now: datetime) -> None:
    with warehouses.connect(store) as con:
        logs.load_input(con, Input(str(path)), now=now)


def kill_while_loading(store: Location, path: Path, milliseconds: int) -> None:
    loader = forking.process(load, store, path, logs.NOW)
    loader.start()
    time.sleep(milliseconds / (100 if warehouses.ON_LAKE else 1000))  # opening a lake takes longer
    loader.kill()
    loader.join()


def held(store: Location) -> list[list[warehouse.Row]]:
    """Return the rows of the warehouse, except which of equal lines came first."""
    with warehouses.connect(store) as con:
        return [
            warehouse.rows(con, sql)
            for sql in (
                "select interaction_id, timestamp, payload from raw.interactions order by all",
                "select feedback_id, timestamp, payload from raw.feedback order by all",
                "select file_digest, line, reason, content from raw.quarantine order by all",
                "select digest, source, rows, quarantined from raw.files order by all",
            )
        ]


@cases(12, suppress_health_check=[HealthCheck.too_slow])
@given(files=FILES, steps=STEPS)
def test_any_interleaving_of_files_duplicates_kills_and_restarts_ends_in_the_same_warehouse(
    files: Sequence[list[Line]], steps: Sequence[Step]
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [
            logs.write(folder / f"{number}.jsonl{'.gz' * (number % 2)}", lines)
            for number, lines in enumerate(files)
        ]
        straight = warehouses.location(folder / "straight.duckdb")
        store = warehouses.location(folder / "store.duckdb")
        for path in paths:
            load(straight, path, logs.NOW)
        for step in steps:
            path = paths[step.file % len(paths)]
            if step.killed_after is None:
                load(store, path, logs.NOW)
            else:
                kill_while_loading(store, path, step.killed_after)
        for path in reversed(paths):
            load(store, path, logs.NOW)
        assert held(store) == held(straight)


@pytest.mark.slow
def test_an_equal_line_many_megabytes_further_down_is_known(tmp_path: Path):
    between = [logs.interaction("x" * 15 * 2**20, response_id=f"long{n}") for n in range(3)]
    path = logs.write(tmp_path / "log.jsonl", [GOOD[0], *between, GOOD[0]])
    with warehouses.connect(tmp_path / "store.duckdb") as con:
        loaded = logs.load_input(con, Input(str(path)), now=logs.NOW)
    assert (loaded.new, loaded.known) == (4, 1)


def test_an_error_while_reading_records_is_raised_unchanged_and_nothing_is_stored(tmp_path: Path):
    def broken() -> Iterator[ParsedRecord]:
        yield ParsedRecord(SourceRow(1, json.dumps(GOOD[0]), GOOD[0]), "interactions", GOOD[0])
        raise OSError("the disk went away")

    origin = RecordOrigin("somewhere", "0" * 64, "fivekey", load_file.NO_DEFAULTS, logs.NOW)
    with warehouses.connect(tmp_path / "store.duckdb") as con:
        with pytest.raises(OSError, match="the disk went away"):
            load_file.load_records(con, origin, broken())
        assert warehouse.rows(con, "select * from raw.interactions") == []
