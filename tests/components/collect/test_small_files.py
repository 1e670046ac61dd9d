"""Small files that are loaded together leave what each leaves by itself."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from components.collect import load_file, small_files, writer
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin
from components.collect.small_files import FilePart
from components.collect.source import NO_DEFAULTS, Input
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs, warehouses

LATER = logs.NOW + timedelta(hours=1)
TABLES = ("interactions", "feedback", "quarantine", "files", "fields")


def alone(con: Connection, inputs: Sequence[Input]) -> list[Loaded]:
    return [load_file.load(con, item, Path(item.place), now=LATER) for item in inputs]


def together(con: Connection, inputs: Sequence[Input]) -> list[Loaded]:
    def one(item: Input) -> Loaded:
        return alone(con, [item])[0]

    loaded = [
        result
        for group in small_files.groups(inputs)
        for result in small_files.load(con, group, one, now=LATER)
    ]
    assert all(isinstance(each, Loaded) for each in loaded)
    return [each for each in loaded if isinstance(each, Loaded)]


def many(folder: Path) -> list[Input]:
    """Write small files: of two lines, of feedback, equal ones, known rows, bad lines, an array."""
    folder.mkdir()
    for number in range(20):
        of_file = [
            logs.interaction(response_id=f"r{number}-{line}", metadata={"line": line})
            for line in range(2)
        ]
        logs.write(folder / f"{number:03d}.jsonl", of_file)
    (folder / "003.jsonl").write_bytes((folder / "002.jsonl").read_bytes())
    logs.write(folder / "005.jsonl", [logs.interaction(response_id="r4-0")])
    other_words = dict(reversed(logs.interaction(response_id="r4-1").items()))
    logs.write(folder / "006.jsonl", [other_words, logs.interaction(response_id="r6-1")])
    logs.write(folder / "008.jsonl", [logs.interaction(workload_id=7), logs.interaction("Eight?")])
    (folder / "009.jsonl").write_text('{"torn')
    deep: Json = []
    for _ in range(250):
        deep = [deep]
    logs.write(folder / "014.jsonl", [logs.interaction("Deep?", metadata={"deep": deep})])
    with (folder / "014.jsonl").open("a") as file:
        file.write('not JSON\n"text"\n' + json.dumps(logs.interaction("After?")) + "\n")
    logs.write(folder / "011.jsonl", [logs.interaction(response_id="r11", trace_id="t")])
    for number in (12, 13):
        logs.write(folder / f"{number:03d}.jsonl", [logs.feedback(comment=str(number))] * 2)
    array = [logs.interaction(response_id=f"r15-{n}") for n in range(3)]
    (folder / "015.jsonl").write_text(json.dumps(array))
    (folder / "016.jsonl").write_text("")
    logs.write(folder / "018.jsonl", [logs.interaction(response_id=f"r{n}") for n in range(400)])
    return [Input(str(path)) for path in sorted(folder.iterdir())]


def left(
    path: Path,
    inputs: Sequence[Input],
    load: Callable[[Connection, Sequence[Input]], list[Loaded]],
    *,
    is_first_known: bool,
) -> tuple[object, ...]:
    """Load files twice; return what is stored, and what was told of each."""
    with warehouses.connect(path) as con:
        if is_first_known:
            logs.load_input(con, inputs[0], now=logs.NOW)
        first, second = load(con, inputs), load(con, inputs)
        stored = [[*warehouse.rows(con, f"from raw.{name} order by all")] for name in TABLES]
    return stored, first, second


@pytest.mark.parametrize("is_first_known", [pytest.param(False, marks=pytest.mark.slow), True])
def test_small_files_leave_the_rows_and_the_counts_of_each_by_itself(
    tmp_path: Path, is_first_known: bool
):
    inputs = many(tmp_path / "logs")
    by_itself, by_group = (
        left(tmp_path / f"{load.__name__}.duckdb", inputs, load, is_first_known=is_first_known)
        for load in (alone, together)
    )
    assert by_group == by_itself


def test_files_whose_bad_lines_would_fill_the_memory_are_not_loaded_together(
    con: Connection, tmp_path: Path
):
    logs.load(con, logs.write(tmp_path / "first.jsonl", [logs.interaction()]), now=logs.NOW)
    before = warehouse.rows(con, "from raw.files")

    def parts(size: int) -> list[FilePart]:
        return [
            FilePart(
                RecordOrigin(f"{n}.jsonl", f"{n}", "fivekey", NO_DEFAULTS, LATER),
                [Unreadable(line, b"x" * size, "no JSON") for line in range(1, 11)],
            )
            for n in range(4)
        ]

    assert small_files.load_together(con, parts(writer.MAX_REFUSED // 39)) is None
    assert warehouse.rows(con, "from raw.files") == before
    loaded = small_files.load_together(con, parts(1))
    assert loaded is not None
    assert [each.quarantined for each in loaded] == [10] * 4


def test_a_log_that_has_grown_is_resumed_though_it_is_small(con: Connection, tmp_path: Path):
    inputs = many(tmp_path / "logs")
    together(con, inputs)
    with Path(inputs[1].place).open("a") as file:
        file.write(json.dumps(logs.interaction("More?")) + "\n")
    again = together(con, inputs)
    assert (again[1].new, again[1].skipped) == (1, False)
    assert sum(each.new for each in again) == 1


def test_a_small_file_that_is_gone_stops_no_other(con: Connection, tmp_path: Path):
    inputs = many(tmp_path / "logs")
    logs.load_input(con, inputs[4], now=logs.NOW)
    gone = OSError("it is gone")
    Path(inputs[2].place).unlink()
    loaded = small_files.load(con, [*inputs[:3], *inputs[17:]], lambda _: gone, now=LATER)
    assert loaded[2] is gone
    assert [each.new for each in loaded if isinstance(each, Loaded)] == [2, 2, 2, 400, 2]
