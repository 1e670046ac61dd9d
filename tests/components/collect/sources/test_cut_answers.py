"""Answers that a server or a client broke off: each source says of them that they are not whole."""

import json
from pathlib import Path
from typing import cast

import pytest

from components.collect.source import Defaults, Input
from components.collect.sources import openai_logs
from components.curate.settings import Rules
from components.extensions.sources import langfuse, mlflow_traces, otlp
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.components.extensions.sources.test_mlflow_traces import span as mlflow_span
from tests.components.extensions.sources.test_mlflow_traces import trace
from tests.support import curations, logs
from tests.support.langfuse_rows import observation
from tests.support.openai_completions import CALLING, REQUEST, RESPONSE
from tests.support.otlp_requests import OLDER, answer, log, question, span, text
from tests.support.source_reading import reason, record, records

CUT = "upstream_cut"

CHUNKS: list[Json] = [
    cast(
        "Json",
        {
            "id": "chatcmpl-3",
            "object": "chat.completion.chunk",
            "created": 1_760_000_001,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        },
    )
    for delta in ({"role": "assistant", "content": ""}, {"content": "Sun"}, {"content": "ny"})
]

PARTS = (
    text("gen_ai.input.messages", json.dumps(question("Rome?"))),
    text("gen_ai.output.messages", json.dumps(answer("Sun"))),
)


@pytest.mark.parametrize("done", ["", "data: [DONE]\n\n"], ids=["cut", "closed-by-a-proxy"])
def test_a_stream_without_its_last_chunk_has_no_finish_reason(done: str):
    stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS) + done
    for streamed in (CHUNKS, stream):
        response = record(openai_logs, {"request": REQUEST, "response": streamed})["response"]
        assert isinstance(response, dict)
        assert response["object"] == "chat.completion"
        assert response["choices"] == [
            {"index": 0, "message": logs.say("Sunny"), "finish_reason": None}
        ]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": {"code": 2, "message": "peer closed connection"}}, id="number"),
        pytest.param({"status": {"code": "STATUS_CODE_ERROR"}}, id="name"),
    ],
)
def test_the_answer_of_a_span_that_ended_in_an_error_is_cut(changes: dict[str, Json]):
    assert record(otlp, span(*PARTS, **changes))["finish"] == CUT


def test_the_answer_of_a_span_with_a_type_of_error_is_cut():
    assert record(otlp, span(*PARTS, text("error.type", "ReadTimeout")))["finish"] == CUT
    assert "finish" not in record(otlp, span(*PARTS, status={"code": 1}))


@pytest.mark.parametrize("comes_first", ["span", "logs"])
def test_the_answer_of_log_records_is_cut_if_their_span_ended_in_an_error(comes_first: str):
    rows = [log(name, dict(body)) for name, body in OLDER]
    ended = span(status={"code": 2})
    for whole in records(otlp, *([ended, *rows] if comes_first == "span" else [*rows, ended])):
        assert whole["finish"] == CUT


def test_the_answer_of_an_observation_with_an_error_is_cut():
    assert record(langfuse, observation(level="ERROR"))["finish"] == CUT
    assert "finish" not in record(langfuse, observation(level="WARNING"))


@pytest.mark.parametrize("code", ["STATUS_CODE_ERROR", "ERROR"])
def test_the_answer_of_an_mlflow_span_with_an_error_is_cut(code: str):
    failed: Json = {**mlflow_span(), "status": {"code": code}}
    assert record(mlflow_traces, trace(failed))["finish"] == CUT
    ended: Json = {**mlflow_span(), "status": {"code": "STATUS_CODE_OK"}}
    assert "finish" not in record(mlflow_traces, trace(ended))


def test_chunks_that_a_tracing_tool_logged_as_the_output_are_joined():
    for chunks, content, finish in (
        (CHUNKS, "Sunny", CUT),
        (cast("list[Json]", CALLING), "Let me see.", "tool_calls"),
    ):
        for converted in (
            record(langfuse, observation(output=json.dumps(chunks))),
            record(mlflow_traces, trace(mlflow_span(spanOutputs=chunks))),
        ):
            response = converted["response"]
            assert isinstance(response, dict)
            match response["choices"]:
                case [{"message": {"content": str(joined)}, "finish_reason": reached}]:
                    assert (joined, reached) == (content, finish)
                case other:
                    pytest.fail(f"{other}")


def test_a_completion_that_a_tracing_tool_logged_without_its_end_is_cut():
    output: Json = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": logs.say("Sun"), "finish_reason": None}],
    }
    assert record(langfuse, observation(output=json.dumps(output)))["finish"] == CUT
    assert record(mlflow_traces, trace(mlflow_span(spanOutputs=output)))["finish"] == CUT


@pytest.mark.parametrize("status", ["in_progress", "queued", "failed", "cancelled"])
def test_a_response_that_has_not_come_to_its_end_is_cut(status: str):
    response = cast("dict[str, Json]", RESPONSE.model_dump(mode="json", exclude_unset=True))
    row: dict[str, Json] = {"request": {"input": "Oslo?"}, "response": response}
    assert "finish" not in record(openai_logs, row)
    row["response"] = {**response, "status": status}
    assert record(openai_logs, row)["finish"] == CUT


def test_a_stream_of_the_responses_api_without_its_end_is_refused_by_that_reason():
    events: Json = [{"type": "response.output_text.delta", "delta": "Sun", "output_index": 0}]
    row: dict[str, Json] = {"request": {"input": "Oslo?"}, "response": events}
    assert reason(openai_logs, row) == (
        "`response` is a stream that breaks off, expected its response.completed or "
        "response.incomplete"
    )


def test_cut_answers_are_no_examples_also_where_an_old_home_took_them_for_whole(
    con: Connection, tmp_path: Path
):
    defaults = Defaults("support", "shop")
    stream: dict[str, Json] = {"request": REQUEST, "response": CHUNKS}
    failed = {"level": "ERROR", "input": json.dumps([{"role": "user", "content": "Hello?"}])}
    for number, row in enumerate(
        [
            stream,
            observation(**{**failed, "level": "DEFAULT"}),  # as homes have it that knew no errors
            observation(**failed),
            observation(id="obs-2"),
        ]
    ):
        path = logs.write(tmp_path / f"{number}.jsonl", [row])
        logs.load_input(con, Input(str(path), defaults=defaults), now=logs.NOW)
    curations.curate(con, "support", Rules(), now=logs.NOW)
    verdicts = warehouse.rows(
        con,
        "select response_id, verdicts.objection from curated.verdicts as verdicts"
        " inner join staging.interactions using (interaction_id) order by response_id",
    )
    assert [(row["response_id"], row["objection"]) for row in verdicts] == [
        ("chatcmpl-3", "partial_answer"),
        ("obs-1", "partial_answer"),
        ("obs-2", None),
    ]
