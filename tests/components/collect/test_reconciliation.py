"""When two logged records are one interaction, in any wording and order."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.collect.load_file import Loaded
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs

Line = dict[str, Json]


def load(con: Connection, path: Path, *lines: Line) -> Loaded:
    return logs.load(con, logs.write(path, lines), now=logs.NOW)


def stored(con: Connection) -> list[Line]:
    sql = "select coalesce(record, payload) as record from raw.interactions order by record"
    return [json.loads(str(row["record"])) for row in warehouse.rows(con, sql)]


def backwards(value: Json) -> Json:
    """Return the value with every object's keys in reverse order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def reworded(line: Line) -> Line:
    turned = backwards(line)
    assert isinstance(turned, dict)
    return turned


@pytest.mark.parametrize("name", ["user_id", "conversation_id", "session_id"])
@pytest.mark.parametrize("together", [True, False])
def test_equal_answers_to_two_users_in_one_second_are_two_interactions(
    con: Connection, tmp_path: Path, name: str, *, together: bool
):
    ann, bob = (logs.interaction(**{name: who}) for who in ("ann", "bob"))
    files = [[ann, bob]] if together else [[ann], [bob]]
    loaded = [load(con, tmp_path / f"{n}.jsonl", *lines) for n, lines in enumerate(files)]
    assert sum(file.new for file in loaded) == 2
    assert [line[name] for line in stored(con)] == ["ann", "bob"]
    ids = warehouse.rows(con, "select distinct interaction_id from raw.interactions")
    assert len(ids) == 2


def test_equal_answers_to_two_users_loaded_again_in_any_order_change_nothing(
    con: Connection, tmp_path: Path
):
    lines = [logs.interaction(user_id=who) for who in ("ann", "bob", "cid")]
    load(con, tmp_path / "1.jsonl", *lines)
    before = warehouse.rows(con, "from raw.interactions order by all")
    again = load(con, tmp_path / "2.jsonl", *reversed(lines), logs.interaction("Another?"))
    assert (again.new, again.known, again.merged) == (1, 3, 0)
    after = warehouse.rows(con, "from raw.interactions order by all")
    assert [row for row in after if row in before] == before


def test_key_order_and_number_form_do_not_matter(con: Connection, tmp_path: Path):
    line = logs.interaction(message=logs.call("weather", {"city": "Rome"}), tools=[logs.WEATHER])
    request = line["request"]
    assert isinstance(request, dict)
    line["request"] = {**request, "temperature": 0, "top_p": 1}
    other = reworded({**line, "request": {**request, "temperature": 0.0, "top_p": 1.0}})
    first = load(con, tmp_path / "1.jsonl", line, other)
    again = load(con, tmp_path / "2.jsonl", other, reworded(logs.interaction("Else?")))
    assert (first.new, first.known) == (1, 1)
    assert (again.new, again.known, again.merged) == (1, 1, 0)


def test_a_different_number_is_another_interaction(con: Connection, tmp_path: Path):
    lines = [logs.interaction() for _ in range(2)]
    for line, temperature in zip(lines, (0, 0.5), strict=True):
        request = line["request"]
        assert isinstance(request, dict)
        line["request"] = {**request, "temperature": temperature}
    assert load(con, tmp_path / "1.jsonl", *lines).new == 2


def test_metadata_that_comes_later_is_added(con: Connection, tmp_path: Path):
    load(con, tmp_path / "1.jsonl", logs.interaction(), logs.interaction("Else?"))
    later = logs.interaction(metadata={"reward": 1}, user_id="ann", duration_ms=12)
    loaded = load(con, tmp_path / "2.jsonl", later)
    assert (loaded.new, loaded.known, loaded.merged) == (0, 1, 1)
    assert later in stored(con)
    assert len(stored(con)) == 2


def test_a_value_that_a_later_record_replaces_is_kept_as_a_version(con: Connection, tmp_path: Path):
    versions = [logs.interaction(metadata={"reward": n, f"seen_{n}": True}) for n in range(3)]
    for number, line in enumerate(versions):
        load(con, tmp_path / f"{number}.jsonl", line)
    metadata: Json = {"reward": 2, "seen_0": True, "seen_1": True, "seen_2": True}
    earlier: Json = [{"metadata": {"reward": 0}}, {"metadata": {"reward": 1}}]
    merged = logs.interaction(metadata=metadata, earlier=earlier)
    assert stored(con) == [merged]
    for number in (1, 0, 2):
        again = load(con, tmp_path / f"again{number}.jsonl", versions[number], {"x": number})
        assert (again.new, again.known, again.merged) == (0, 1, 0)
    assert stored(con) == [merged]


def test_a_record_without_names_matches_the_named_one(con: Connection, tmp_path: Path):
    load(con, tmp_path / "1.jsonl", logs.interaction(user_id="ann"))
    loaded = load(con, tmp_path / "2.jsonl", logs.interaction(metadata={"reward": 1}))
    assert (loaded.new, loaded.known, loaded.merged) == (0, 1, 1)
    assert stored(con) == [logs.interaction(user_id="ann", metadata={"reward": 1})]


def test_traces_distinguish_only_answers_without_an_id(con: Connection, tmp_path: Path):
    with_id = [logs.interaction(trace_id=trace) for trace in ("a", "b")]
    without_id = [logs.interaction("Else?", response_id=None, trace_id=t) for t in ("a", "b")]  # pyright: ignore[reportArgumentType] - a log without ids
    assert load(con, tmp_path / "1.jsonl", *with_id).new == 1
    assert load(con, tmp_path / "2.jsonl", *without_id).new == 2


@pytest.mark.slow
def test_thousands_of_equal_answers_in_one_second_cost_each_the_same(
    con: Connection, tmp_path: Path
):
    pings: Sequence[Line] = [logs.interaction("hi", user_id=f"user{n}") for n in range(3_000)]
    loaded = load(con, tmp_path / "1.jsonl", *pings, *map(reworded, pings))
    assert (loaded.new, loaded.known) == (3_000, 3_000)
    again = load(con, tmp_path / "2.jsonl", *map(reworded, pings), logs.interaction("Else?"))
    assert (again.new, again.known) == (1, 3_000)


def test_records_nested_too_deeply_to_be_compared_cost_only_themselves(
    con: Connection, tmp_path: Path
):
    plain = json.dumps(logs.interaction())
    deep = [plain[:-1] + f', "more": {"[" * depth}{"]" * depth}}}' for depth in (2_000, 2_001)]
    path = tmp_path / "deep.jsonl"
    path.write_text("\n".join([*deep, json.dumps(logs.interaction("Else?"))]) + "\n")
    loaded = logs.load(con, path, now=logs.NOW)
    assert (loaded.new, loaded.known) == (2, 1)


def test_feedback_that_differs_in_key_order_or_number_form_is_one_event(
    con: Connection, tmp_path: Path
):
    lines = [
        logs.feedback("outcome", {"name": "solved", "value": 0}, response_id="r1"),
        logs.feedback("rating", 4, scale=[1, 5], response_id="r2"),
        logs.feedback("correction", logs.call("weather", '{"city": "Rome"}'), response_id="r3"),
    ]
    others: list[Line] = [
        logs.feedback("outcome", {"value": 0.0, "name": "solved"}, response_id="r1"),
        logs.feedback("rating", 4.0, scale=[1.0, 5.0], response_id="r2"),
        backwards(lines[2]),  # pyright: ignore[reportAssignmentType] - an object as the line is
    ]
    assert logs.load_feedback(con, logs.write(tmp_path / "1.jsonl", lines), now=logs.NOW).new == 3
    again = logs.load_feedback(con, logs.write(tmp_path / "2.jsonl", others), now=logs.NOW)
    assert (again.new, again.known) == (0, 3)
    changed = [
        logs.feedback("outcome", {"value": 1, "name": "solved"}, response_id="r1"),
        logs.feedback("rating", 4, scale=[1, 10], response_id="r2"),
        logs.feedback("rating", 4, scale=[1, 5], response_id="r2", actor_id="else"),
    ]
    later = logs.load_feedback(
        con, logs.write(tmp_path / "3.jsonl", [*changed, *lines]), now=logs.NOW
    )
    assert (later.new, later.known) == (3, 3)
