"""Batches whose requests and answers are in two files, joined by the id of each request."""

import json
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from components.collect import files, quarantine
from components.collect.source import Defaults, Input, ParsedRecord, RejectedRecord
from components.collect.sources import openai_batch
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs, mutation, openai_completions
from tests.support.batch_rows import answer, request
from tests.support.source_reading import DEFAULTS, read, reason, record, rows

LATER = logs.NOW + timedelta(hours=1)


def test_an_answer_is_an_interaction_with_its_request_in_either_order():
    assert openai_batch.claims(request())
    assert openai_batch.claims(answer())
    body = request()["body"]
    for order in ((request(), answer()), (answer(), request()), (request(), answer(), answer())):
        converted = record(openai_batch, *order)
        assert converted == {
            "timestamp": 1_760_000_000,
            "workload_id": "support",
            "client_id": "shop",
            "request": body,
            "response": openai_completions.completion(
                id="chatcmpl-1",
                choices=[{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
            ),
        }


def test_a_batch_of_the_responses_api_becomes_chat():
    asked = request(url="/v1/responses", body={"model": "gpt-5", "input": "Oslo?"})
    row = answer()
    body = openai_completions.RESPONSE.model_dump(mode="json")
    row["response"] = {"status_code": 200, "body": body}
    match record(openai_batch, asked, row):
        case {"request": {"messages": [{"content": "Oslo?"}]}, "response": {"choices": [chosen]}}:
            assert isinstance(chosen, dict)
            assert chosen["finish_reason"] == "tool_calls"
        case other:
            pytest.fail(f"{other}")
    row["response"] = {"status_code": 200, "body": {**body, "status": "in_progress"}}
    assert record(openai_batch, asked, row)["finish"] == "upstream_cut"


ASKED: dict[str, Json] = {
    "custom_id": "a",
    "params": {
        "model": "claude-sonnet-4-5",
        "max_tokens": 9,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Oslo?"}],
    },
}


def result(**changes: Json) -> dict[str, Json]:
    """Write a line of the results of Anthropic's Message Batches API."""
    message: dict[str, Json] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    written: dict[str, Json] = {"type": "succeeded", "message": message, **changes}
    return {"custom_id": "a", "result": written}


def test_a_batch_of_anthropics_api_becomes_chat():
    assert openai_batch.claims(ASKED)
    assert openai_batch.claims(result())
    for order in ((ASKED, result()), (result(), ASKED)):
        converted = record(openai_batch, *order)
        assert converted["timestamp"] == 0  # neither file has a time
        assert converted["request"] == {
            "model": "claude-sonnet-4-5",
            "max_tokens": 9,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Oslo?"},
            ],
        }
        match converted["response"]:
            case {"id": "msg_1", "choices": [{"message": {"tool_calls": [call]}}]}:
                function: Json = {"name": "weather", "arguments": {"city": "Oslo"}}
                assert call == {"id": "t1", "type": "function", "function": function}
            case other:
                pytest.fail(f"{other}")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            result(type="errored", error={"type": "error"}),
            '`result.type` is "errored", expected succeeded: the call has no answer',
        ),
        (
            result(type="expired"),
            '`result.type` is "expired", expected succeeded: the call has no answer',
        ),
        (result(message=None), "`result.message` is null, expected an object"),
        (
            result(),
            'the `custom_id` "a" has an answer and no request, expected the input file',
        ),
        (ASKED, 'the `custom_id` "a" has a request and no answer, expected the output file'),
        (ASKED | {"params": []}, "`params` is an array, expected an object"),
    ],
)
def test_a_row_of_anthropics_batch_that_has_no_answer_says_why(row: dict[str, Json], expected: str):
    assert reason(openai_batch, row) == expected


def test_an_answer_without_a_reason_to_stop_is_cut():
    choices: Json = [{"index": 0, "message": logs.say("Sun"), "finish_reason": None}]
    assert record(openai_batch, request(), answer(choices=choices))["finish"] == "upstream_cut"


def test_a_row_that_lacks_the_other_is_refused_with_what_is_missing():
    assert reason(openai_batch, request("a")) == (
        'the `custom_id` "a" has a request and no answer, expected the output file'
    )
    assert reason(openai_batch, answer("a")) == (
        'the `custom_id` "a" has an answer and no request, expected the input file'
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            answer() | {"response": None, "error": {"code": "batch_expired", "message": "late"}},
            "`error` is an object, expected a response",
            id="expired",
        ),
        pytest.param(
            answer() | {"response": {"status_code": 429, "body": {"error": {"code": "slow"}}}},
            '`response.status_code` is "429", expected 200: the call has no answer',
            id="failed",
        ),
        pytest.param(
            answer() | {"response": None}, "`response` is null, expected an object", id="empty"
        ),
        pytest.param(
            {key: value for key, value in answer().items() if key != "custom_id"},
            "`custom_id` is missing, expected text",
            id="no-id",
        ),
    ],
)
def test_a_failed_answer_is_refused_and_another_attempt_is_joined(
    row: dict[str, Json], expected: str
):
    refused, joined = read(openai_batch, row, request(), answer())
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == expected
    assert isinstance(joined, ParsedRecord)


def test_an_id_of_two_batches_joins_nothing():
    for outcome in read(openai_batch, request(), request(question="Oslo?"), answer()):
        assert isinstance(outcome, RejectedRecord)
        assert outcome.reason == 'the `custom_id` "1" has 2 different requests, expected one'
    for outcome in read(openai_batch, request(), answer(), answer(text="Rainy.")):
        assert isinstance(outcome, RejectedRecord)
        assert outcome.reason == 'the `custom_id` "1" has 2 different answers, expected one'


def test_every_damaged_row_is_read_or_refused_and_never_raises():
    values = [*mutation.mutants([request(), answer()], 2000, seed=3)]
    values = [value for value in values if openai_batch.claims(value)]
    damaged = [{**value, "custom_id": f"{n // 2}"} for n, value in enumerate(values)]
    outcomes = read(openai_batch, *damaged)
    for outcome in outcomes:
        json.dumps(outcome.record if isinstance(outcome, ParsedRecord) else outcome.reason)
    deep = cast("Json", json.loads("[" * 300 + "]" * 300))
    assert reason(openai_batch, request(body={"messages": deep})).endswith("than 200 levels")
    for odd in ("a\x00b", "\ud800", 10**400, float("nan")):
        list(openai_batch.read(rows([request(question=cast("str", odd)), answer()]), DEFAULTS))


def _load(con: Connection, path: Path, values: list[dict[str, Json]], workload: str = "w") -> int:
    item = Input(str(logs.write(path, values)), defaults=Defaults(workload, "shop"))
    loaded = logs.load_input(con, item, now=logs.NOW)
    assert loaded.source == "openai_batch"
    return loaded.quarantined


def _join(con: Connection) -> tuple[int, list[str]]:
    parts = quarantine.joinable(con, openai_batch.NAME)
    stored = [quarantine.join(con, ids, now=LATER) for ids in parts]
    left = warehouse.rows(con, "select path from raw.quarantine order by path, line")
    new = sum(each.new for part in stored for each in part.values())
    return new, [Path(str(row["path"])).name for row in left]


@pytest.mark.parametrize("first", ["input", "output"])
def test_two_files_are_joined_in_whatever_order_they_come(
    con: Connection, tmp_path: Path, first: str
):
    contents = {
        "input": [request("1"), request("2", "Oslo?"), request("3", "Bonn?")],
        "output": [answer("2", "Rainy."), answer("1")],
    }
    for name in (first, *(contents.keys() - {first})):
        assert _load(con, tmp_path / f"{name}.jsonl", contents[name]) == len(contents[name])
    assert _join(con) == (2, ["input.jsonl"])
    stored = warehouse.rows(
        con,
        "select record ->> '$.request.messages[0].content' as question, path, line,"
        " record ->> '$.response.choices[0].message.content' as answer, payload"
        " from raw.interactions inner join raw.files on digest = file_digest order by line",
    )
    assert [(row["question"], row["answer"], row["line"]) for row in stored] == [
        ("Oslo?", "Rainy.", 1),
        ("Rome?", "Sunny.", 2),
    ]
    assert {Path(str(row["path"])).name for row in stored} == {"output.jsonl"}
    (refused,) = quarantine.groups(con)
    assert refused.reason.startswith('the `custom_id` "3" has a request and no answer')
    assert _load(con, tmp_path / "rest.jsonl", [answer("3", "Cold.")]) == 1
    assert _join(con) == (1, [])


def test_files_of_other_workloads_are_not_joined(con: Connection, tmp_path: Path):
    _load(con, tmp_path / "a.jsonl", [request()])
    _load(con, tmp_path / "b.jsonl", [answer()], workload="other")
    assert _join(con) == (0, ["a.jsonl", "b.jsonl"])


def test_the_files_of_anthropics_batch_are_joined(con: Connection, tmp_path: Path):
    _load(con, tmp_path / "a.jsonl", [ASKED])
    _load(con, tmp_path / "b.jsonl", [result()])
    assert _join(con) == (1, [])


def test_the_files_of_two_batches_with_the_same_ids_wait_until_each_is_one_file(
    con: Connection, tmp_path: Path
):
    asked = [[request()], [request(question="Oslo?")]]
    answered = [[answer()], [answer(text="Rainy.")]]
    for number in range(2):
        _load(con, tmp_path / f"{number}-in.jsonl", asked[number])
        _load(con, tmp_path / f"{number}-out.jsonl", answered[number])
    assert _join(con)[0] == 0
    for number in range(2):
        both = logs.write(tmp_path / f"{number}.jsonl", asked[number] + answered[number])
        item = Input(str(both), defaults=Defaults("w", "shop"))
        assert logs.load_input(con, item, now=LATER).new == 1


def test_what_was_joined_in_vain_is_read_again_only_with_another_row(
    con: Connection, tmp_path: Path
):
    _load(con, tmp_path / "in.jsonl", [request("1"), request("1", "Oslo?"), request("2")])
    assert _join(con)[0] == 0
    assert quarantine.joinable(con, openai_batch.NAME) == []
    _load(con, tmp_path / "out.jsonl", [answer("1")])
    (part,) = quarantine.joinable(con, openai_batch.NAME)
    assert len(part) == 3
    assert _join(con)[0] == 0
    assert quarantine.joinable(con, openai_batch.NAME) == []


@pytest.mark.slow
def test_large_files_are_joined_in_parts_of_whole_calls(con: Connection, tmp_path: Path):
    third = quarantine.JOINED_BYTES // 3
    asked = [request(str(n), str(n) * size) for n, size in enumerate((third, third, third, 1))]
    _load(con, tmp_path / "in.jsonl", asked[::-1])
    _load(con, tmp_path / "out.jsonl", [answer(str(n)) for n in range(4)])
    parts = quarantine.joinable(con, openai_batch.NAME)
    assert [len(part) for part in parts] == [6, 2]
    assert _join(con) == (4, [])


def test_a_source_that_joins_files_is_detected():
    assert files.detect_source([request(), answer()]) is openai_batch
