"""A map reads records of any form: which field of them is what is configuration."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.collect import files, importers, quarantine
from components.collect.field_map import PREFIX, FieldMap, name_of
from components.collect.source import Defaults, Input, ParsedRecord
from components.extensions.sources import mapped
from components.extensions.sources.mapped import Mapped
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import gemini_bodies, logs, mutation, openai_completions
from tests.support.source_reading import read, reason, record, records

FLAT: dict[str, Json] = {
    "id": 7,
    "created": 1_760_000_000_123,
    "app": {"name.short": "weather", "tenant": "shop"},
    "input": {"system": "Be brief.", "chat": [{"role": "user", "content": "Rome?"}]},
    "output": [{"text": "Sunny."}],
    "settings": '{"model": "gpt-4o-mini", "temperature": 0.2}',
    "usage": {"in": 9, "out": 2},
    "session": "s1",
    "user": {"email": "ann@example.org"},
    "liked": True,
    "stars": 4,
    "note": "Short.",
}
MAP: dict[str, Json] = {
    "request": "input.chat",
    "parameters": {"system": "input.system", "temperature": "settings.temperature"},
    "answer": "output[0].text",
    "model": "settings.model",
    "timestamp": "created",
    "response_id": "uuid | id",
    "workload_id": 'app["name.short"]',
    "client_id": "app.tenant",
    "conversation_id": "session",
    "user_id": "user.email",
    "prompt_tokens": "usage.in",
    "completion_tokens": "usage.out",
    "metadata": {"stars": "stars", "release": "release"},
    "feedback": [
        {"kind": "thumb", "value": "liked", "comment": "note"},
        {"kind": "rating", "value": "stars", "scale": [1, 5], "actor_id": "rated_by"},
        {"kind": "outcome", "value": "bought"},
    ],
}
SAID = {"timestamp": 1_760_000_000.123, "workload_id": "weather", "client_id": "shop"}


def source(**field_map: Json) -> Mapped:
    return Mapped(name_of(FieldMap.model_validate(field_map)))


def test_a_record_becomes_an_interaction_and_its_feedback_by_the_paths_of_a_map():
    interaction, thumb, rating = records(source(**MAP), FLAT)
    assert interaction == {
        **SAID,
        "request": {
            "model": "gpt-4o-mini",
            "temperature": 0.2,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Rome?"},
            ],
        },
        "response": {
            "id": "7",
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 2},
        },
        "conversation_id": "s1",
        "user_id": "ann@example.org",
        "metadata": {"stars": 4},
    }
    about = {**SAID, "response_id": "7"}
    assert thumb == {
        **about,
        "actor_id": "ann@example.org",
        "kind": "thumb",
        "value": "up",
        "comment": "Short.",
    }
    assert rating == {**about, "actor_id": "unknown", "kind": "rating", "value": 4, "scale": [1, 5]}


@pytest.mark.parametrize(
    ("value", "question", "answer"),
    [
        pytest.param(
            {"q": openai_completions.REQUEST, "a": openai_completions.completion()},
            openai_completions.REQUEST["messages"],
            None,
            id="openai",
        ),
        pytest.param(
            {"q": json.dumps(gemini_bodies.ASKED), "a": json.dumps(gemini_bodies.answered())},
            None,
            None,
            id="gemini-as-text",
        ),
        pytest.param(
            {
                "q": {"system": "Be brief.", "messages": [{"role": "user", "content": "Rome?"}]},
                "a": {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "text", "text": "Sunny."}],
                    "stop_reason": "end_turn",
                },
            },
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rome?"}],
            "Sunny.",
            id="anthropic",
        ),
    ],
)
def test_bodies_are_read_as_the_apis_take_and_give_them(
    value: dict[str, Json], question: Json, answer: str | None
):
    converted = record(source(request="q", response="a"), value)
    request, response = converted["request"], converted["response"]
    assert isinstance(request, dict)
    assert isinstance(response, dict)
    assert request["messages"] == question or question is None
    match response["choices"]:
        case [{"message": {"content": text}}]:
            assert text == answer or answer is None
        case other:
            pytest.fail(f"{other}")


def test_an_answer_in_json_stays_text_and_the_text_of_a_prompt_becomes_a_message():
    converted = record(source(request="q", answer="a"), {"q": "Rome?", "a": '{"sky": "clear"}'})
    assert converted["timestamp"] == 0  # no path leads to a time
    assert converted["request"] == {"messages": [{"role": "user", "content": "Rome?"}]}
    match converted["response"]:
        case {"choices": [{"message": message}]}:
            assert message == logs.say('{"sky": "clear"}')
        case other:
            pytest.fail(f"{other}")


def test_a_map_of_feedback_alone_reads_what_was_said_of_calls_in_other_files():
    votes = source(
        response_id="call", timestamp="at", feedback=[{"kind": "correction", "value": "better"}]
    )
    said = record(votes, {"call": "r1", "at": "2026-01-01T00:00:00Z", "better": "Rainy."})
    assert (said["response_id"], said["kind"], said["value"]) == (
        "r1",
        "correction",
        logs.say("Rainy."),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"output": []}, "`output[0].text` is empty, expected messages or text"),
        ({"input": {}}, "`input.chat` is empty, expected messages or text"),
        ({"id": ["7"]}, "`uuid | id` is an array, expected text or a number"),
    ],
)
def test_a_record_that_lacks_a_part_is_refused_with_the_path(
    changes: dict[str, Json], expected: str
):
    assert reason(source(**MAP), FLAT | changes) == expected


def test_all_mistakes_of_a_map_are_listed_at_once():
    name = PREFIX + json.dumps(
        {"request": "a..b", "answer": "c", "response": "d", "modell": "e", "feedback": [{}]}
    )
    with pytest.raises(importers.UnknownSourceError) as error:
        files.source_named(name)
    for mistake in ("'a..b' is no path", "modell: no such setting", "feedback.0.kind: is missing"):
        assert mistake in str(error.value)
    with pytest.raises(ValueError, match="needs request and one of response and answer"):
        source(answer="c")
    with pytest.raises(ValueError, match="needs response_id or conversation_id for its feedback"):
        source(request="a", answer="c", feedback=[{"kind": "comment", "value": "note"}])


def test_a_table_is_loaded_by_a_map_and_what_was_refused_is_retried_with_it(
    con: Connection, tmp_path: Path
):
    path, later = tmp_path / "calls.parquet", FLAT | {"created": "2029-01-01T00:00:00Z"}
    table = [FLAT | {"created": "2025-10-09T00:00:00Z"}, later]
    pq.write_table(pa.Table.from_pylist(table), path)
    item = Input(str(path), source(**MAP).NAME, defaults=Defaults("other", "app"))
    loaded = logs.load_input(con, item, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (3, 1)
    assert logs.load_input(con, item, now=logs.NOW).skipped
    (ids,) = quarantine.retriable(con, None)
    assert quarantine.retry(con, ids, now=datetime(2029, 2, 1, tzinfo=UTC)).new == 3


ASKED: dict[str, Json] = {"q": "Rome?", "a": "Sunny."}
SHORT: dict[str, Json] = {"request": "q", "answer": "a", "timestamp": "t"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("time", ["Infinity", "-Infinity", "NaN", "1e999", "1" + "0" * 400, "-5"])
def test_a_time_that_no_clock_shows_costs_its_own_line_alone(
    con: Connection, tmp_path: Path, time: str
):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f'{{"q": "Rome?", "a": "Sun", "t": {t}}}\n' for t in (time, "1.76e9")))
    item = Input(str(path), source(**SHORT).NAME, defaults=Defaults("weather", "shop"))
    loaded = logs.load_input(con, item, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (1, 1)


@pytest.mark.timeout(20)
def test_an_infinite_time_of_a_table_costs_its_own_row_alone(con: Connection, tmp_path: Path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist([ASKED | {"t": t} for t in (math.inf, 1.76e9)]), path)
    item = Input(str(path), source(**SHORT).NAME, defaults=Defaults("weather", "shop"))
    loaded = logs.load_input(con, item, now=logs.NOW)
    assert (loaded.new, loaded.quarantined) == (1, 1)


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_a_time_is_read_in_each_unit_that_clocks_count_in(factor: int):
    row = ASKED | {"t": 1_760_000_000 * factor}
    assert record(source(**SHORT), row)["timestamp"] == 1_760_000_000


@given(st.lists(st.sampled_from(["a", "0", "-1", '["a.b"]', "[0]", "[7]", ".a", "|"]), max_size=6))
def test_whatever_a_path_is_it_leads_somewhere_or_is_refused(parts: list[str]):
    value: Json = {"a": [{"a": {"a.b": 1}}, '{"a": [2]}'], "0": 3}
    try:
        source(request="".join(parts), answer="a")
    except ValueError:
        return
    mapped.find(value, "".join(parts))


def test_every_damaged_record_is_read_or_refused_and_never_raises():
    for value in mutation.mutants([FLAT], 1_000, seed=3):
        for outcome in read(source(**MAP), value):
            json.dumps(outcome.record if isinstance(outcome, ParsedRecord) else outcome.reason)
