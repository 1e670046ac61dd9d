"""Batches of Gemini's, whose requests and answers are in two files, joined by their keys."""

import json
from pathlib import Path

import pytest

from components.collect import files
from components.collect.source import Defaults, Input, ParsedRecord, RejectedRecord
from components.collect.sources import gemini_batch
from components.schema import Json
from components.store import warehouse
from flows import sources
from tests.support import gemini_bodies, logs
from tests.support.source_reading import read, reason, record


def request(key: str = "request-1", question: str = "Rome?", **changes: Json) -> dict[str, Json]:
    """Write a row of an input file."""
    contents: Json = [{"parts": [{"text": question}]}]
    asked: Json = {"contents": contents, "generation_config": {"temperature": 0.7}, **changes}
    return {"key": key, "request": asked}


def answer(key: str = "request-1", *candidates: Json, **changes: Json) -> dict[str, Json]:
    """Write a row of an output file; ``changes`` are of the response."""
    response: dict[str, Json] = {
        "candidates": [*(candidates or (gemini_bodies.candidate({"text": "Sunny."}),))],
        "modelVersion": "gemini-2.5-flash",
        "responseId": f"id-{key}",
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2},
        **changes,
    }
    return {"response": response, "key": key}


FAILED: dict[str, Json] = {"key": "request-1", "error": {"code": 3, "message": "Invalid argument."}}


def test_an_answer_is_an_interaction_with_its_request_in_either_order():
    for row in (request(), answer(), FAILED):
        assert files.detect_source([row]) is gemini_batch
    for order in ((request(), answer()), (answer(), request()), (request(), answer(), answer())):
        assert record(gemini_batch, *order) == {
            "timestamp": 0,  # neither file has a time
            "workload_id": "support",
            "client_id": "shop",
            "request": {
                "messages": [{"role": "user", "content": "Rome?"}],
                "temperature": 0.7,
            },
            "response": {
                "id": "id-request-1",
                "model": "gemini-2.5-flash",
                "choices": [
                    {"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"},
                ],
                "usage": {"prompt_tokens": 7, "completion_tokens": 2},
            },
        }


def test_calls_and_several_candidates_of_a_batch_are_read():
    called = gemini_bodies.candidate(
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
    )
    more = gemini_bodies.candidate({"text": "Clear."})
    asked = request(tools=gemini_bodies.ASKED["tools"])
    converted = record(gemini_batch, asked, answer("request-1", called, more))
    match converted:
        case {"request": {"tools": [{"function": {"name": "weather"}}]}, "response": response}:
            assert isinstance(response, dict)
        case other:
            pytest.fail(f"{other}")
    match response:
        case {"choices": [{"message": {"tool_calls": [call]}}, {"message": {"content": "Clear."}}]}:
            assert isinstance(call, dict)
            assert call["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
        case other:
            pytest.fail(f"{other}")


def test_an_answer_that_broke_off_is_marked():
    cut = gemini_bodies.candidate({"text": "Sun"}, reason=None)
    assert record(gemini_batch, request(), answer("request-1", cut))["finish"] == "upstream_cut"


def test_a_request_that_failed_or_was_blocked_has_no_answer_to_learn():
    assert reason(gemini_batch, FAILED) == "`error` is an object, expected a response"
    blocked: dict[str, Json] = {"promptFeedback": {"blockReason": "SAFETY"}}
    refused = read(gemini_batch, request(), {"key": "request-1", "response": blocked})
    assert [each.reason for each in refused if isinstance(each, RejectedRecord)] == [
        '`response.promptFeedback.blockReason` is "SAFETY", expected an answer: the prompt was '
        "blocked"
    ] * 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param([request()], "has a request and no answer, expected the output file", id="a"),
        pytest.param([answer()], "has an answer and no request, expected the input file", id="q"),
        pytest.param(
            [request(), request(question="Oslo?"), answer()],
            "has 2 different requests, expected one",
            id="two-batches",
        ),
    ],
)
def test_what_lacks_the_other_or_has_several_is_refused(values: list[dict[str, Json]], said: str):
    for each in read(gemini_batch, *values):
        assert isinstance(each, RejectedRecord)
        assert each.reason == f'the `key` "request-1" {said}'


def test_without_a_key_nothing_says_which_answer_is_whose():
    keyless = logs.without(answer(), "key")
    assert files.detect_source([keyless]) is not gemini_batch
    refused, _ = read(gemini_batch, keyless, request())
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == "`key` is missing, expected text"


def test_the_two_files_of_a_batch_are_joined_whichever_comes_first(tmp_path: Path):
    path = tmp_path / "warehouse.duckdb"
    names = [
        logs.write(tmp_path / "out.jsonl", [answer("a"), answer("b")]),
        logs.write(tmp_path / "in.jsonl", [request("b"), request("c"), request("a", "Oslo?")]),
    ]
    for name in names:
        item = Input(str(name), defaults=Defaults("support", "shop"))
        list(sources.load_inputs(path, [item], now=logs.NOW))
    with warehouse.connect(path) as con:
        stored = warehouse.rows(con, "select record from raw.interactions")
        left = warehouse.rows(con, "select line, reason from raw.quarantine")
    asked = [json.loads(str(row["record"])) for row in stored]
    assert {each["request"]["messages"][0]["content"] for each in asked} == {"Rome?", "Oslo?"}
    assert [row["line"] for row in left] == [2]
    assert all(isinstance(each, ParsedRecord) for each in read(gemini_batch, request(), answer()))
