import json
from pathlib import Path
from typing import cast

import pytest

from components.collect import survey
from components.collect.source import Defaults, Input, ParsedRecord, RejectedRecord
from components.extensions.sources import langsmith
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs, openai_completions
from tests.support.langsmith_rows import (
    MESSAGES,
    RUN,
    TRACE,
    feedback,
    generated,
    run,
    serialized,
)
from tests.support.litellm_payloads import payload
from tests.support.source_reading import read, reason, record, records

CHAT: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
]


def choice(row: dict[str, Json]) -> dict[str, Json]:
    response = record(langsmith, row)["response"]
    assert isinstance(response, dict)
    match response["choices"]:
        case [dict(only)]:
            return only
        case other:
            pytest.fail(f"{other}")


def test_a_run_of_a_chat_model_is_an_interaction_field_by_field():
    assert langsmith.claims(run())
    assert record(langsmith, run()) == {
        "timestamp": "2025-10-09T08:53:20.250000",
        "workload_id": "support",
        "client_id": "shop",
        "request": {"model": "gpt-4o-mini", "temperature": 0.7, "messages": CHAT},
        "response": {
            "id": RUN,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3},
        },
        "conversation_id": "s-1",
        "user_id": "u-7",
        "trace_id": TRACE,
        "metadata": {
            "ls_model_name": "gpt-4o-mini",
            "thread_id": "s-1",
            "user_id": "u-7",
            "name": "ChatOpenAI",
            "tags": ["beta"],
        },
        "duration_ms": 750.0,
    }


def test_columns_of_a_bulk_export_have_their_values_as_text():
    texts = {key: json.dumps(run()[key]) for key in ("inputs", "outputs", "extra")}
    assert record(langsmith, run(**texts)) == record(langsmith, run())


def test_a_run_of_the_wrapped_client_is_read_as_its_api_has_it():
    request: dict[str, Json] = {"model": "gpt-4o-mini", "messages": CHAT, "tools": [logs.WEATHER]}
    message = logs.call("weather", '{"city": "Rome"}')
    answer: Json = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    streamed = openai_completions.completion(choices=[answer], object="chat.completion.chunk")
    converted = record(langsmith, run(inputs=request, outputs=streamed))
    assert converted["request"] == {"temperature": 0.7, **request}
    assert choice(run(inputs=request, outputs=streamed)) == answer
    assert "finish" not in converted
    streamed["choices"] = [{"index": 0, "message": logs.say("Sun"), "finish_reason": None}]
    assert record(langsmith, run(inputs=request, outputs=streamed))["finish"] == "upstream_cut"


def test_calls_and_results_of_tools_are_put_in_chat_form():
    calls: Json = [{"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}]
    broken: Json = [{"name": "weather", "args": '{"city', "id": "c2", "error": "no JSON"}]
    asked = serialized("AIMessage", "", tool_calls=calls)
    result = serialized("ToolMessage", "22 C", tool_call_id="c1", status="success")
    answered = serialized("AIMessageChunk", "", tool_calls=calls, invalid_tool_calls=broken)
    row = run(inputs={"messages": [[*MESSAGES, asked, result]]}, outputs=generated(answered))
    request = record(langsmith, row)["request"]
    assert isinstance(request, dict)
    call: Json = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": {"city": "Rome"}},
    }
    assert request["messages"] == [
        *CHAT,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "22 C", "tool_call_id": "c1"},
    ]
    assert choice(row) == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                call,
                {
                    "id": "c2",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city'},
                },
            ],
        },
        "finish_reason": "tool_calls",
    }


def test_older_calls_are_in_openais_form():
    message = logs.call("weather", '{"city": "Rome"}')
    more: Json = {"tool_calls": message["tool_calls"]}
    answered = serialized("AIMessage", "", additional_kwargs=more)
    assert choice(run(outputs=generated(answered)))["message"] == message | {"content": ""}


@pytest.mark.parametrize(
    ("known", "expected"),
    [({"stop_reason": "max_tokens"}, "length"), ({"finish_reason": "STOP"}, "stop"), ({}, "stop")],
)
def test_the_reason_to_stop_is_the_providers(known: Json, expected: str):
    answered = serialized("AIMessage", "Sunny.", response_metadata=known)
    assert choice(run(outputs=generated(answered)))["finish_reason"] == expected


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        pytest.param(
            {"prompts": ["Rome?"]},
            {"generations": [[{"text": "Sunny.", "type": "Generation"}], []]},
            id="completion-model",
        ),
        pytest.param({"messages": [{"role": "user", "content": "Rome?"}]}, {"output": "Sunny."}),
        pytest.param(
            {"messages": [{"role": "user", "content": "Rome?"}]},
            {"messages": [logs.say("Sunny.")]},
            id="traced",
        ),
    ],
)
def test_other_inputs_and_outputs_are_read(inputs: Json, outputs: Json):
    request = record(langsmith, run(inputs=inputs, outputs=outputs))["request"]
    assert isinstance(request, dict)
    assert request["messages"] == [{"role": "user", "content": "Rome?"}]
    assert choice(run(inputs=inputs, outputs=outputs))["message"] == logs.say("Sunny.")


def test_a_payload_of_litellm_is_read_as_its_own_source_reads_it():
    response = openai_completions.completion()
    request = record(langsmith, run(inputs=payload(), outputs=response))["request"]
    assert isinstance(request, dict)
    assert request["tools"] == [logs.WEATHER]
    assert "request_tags" not in request


def test_an_answer_that_ended_in_an_error_is_cut_and_none_is_refused():
    failed = run(error="GeneratorExit()", status="error")
    assert record(langsmith, failed)["finish"] == "upstream_cut"
    assert reason(langsmith, failed | {"outputs": None}) == "`error` is text, expected a response"


def test_generations_of_a_call_that_failed_are_a_part_of_an_answer_or_none():
    begun: Json = {"text": "Sun", "type": "ChatGenerationChunk"}
    begun["message"] = serialized("AIMessageChunk", "Sun")
    # As LangChain's tracer has the stream that its reader left.
    left = run(error="GeneratorExit()", outputs={"generations": [[begun], []]})
    assert record(langsmith, left)["finish"] == "upstream_cut"
    assert choice(left)["message"] == logs.say("Sun")
    nothings: list[list[Json]] = [[], [[]]]
    for nothing in nothings:
        failed = run(error="ValueError()", outputs={"generations": nothing, "llm_output": None})
        assert reason(langsmith, failed) == "`error` is text, expected a response"


def test_runs_in_a_run_are_read_with_what_people_thought_of_the_first():
    root = run(
        id=TRACE,
        run_type="chain",
        parent_run_id=None,
        child_runs=[
            run(run_type="chain", id="c", child_runs=[run()], feedback_stats={"k": {"avg": 0}}),
            run(id="r2", outputs=None),
        ],
        feedback_stats={
            "user_score": {"n": 1, "avg": 1.0, "values": {}, "comments": ["Clear."]},
            "tone": {"n": 2, "avg": None, "values": {"warm": 2}},
            "none": {"n": 0, "avg": None, "values": {}},
        },
    )
    kinds = [outcome.kind for outcome in read(langsmith, root) if isinstance(outcome, ParsedRecord)]
    assert kinds == ["feedback", "feedback", "interactions"]
    first, second, refused, call = read(langsmith, root)
    assert isinstance(first, ParsedRecord)
    assert first.record == {
        "timestamp": "2025-10-09T08:53:21.000000",
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "unknown",
        "kind": "outcome",
        "value": {"name": "user_score", "value": 1.0},
        "target_id": TRACE,
        "comment": "Clear.",
        "metadata": {"n": 1},
    }
    assert isinstance(second, ParsedRecord)
    assert second.record["value"] == {"name": "tone", "value": "warm"}
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == "`outputs` is empty, expected messages or text"
    assert isinstance(call, ParsedRecord)
    assert json.loads(call.row.text) == run()


def test_statistics_of_several_values_are_refused_and_the_call_is_loaded():
    loaded, refused = read(
        langsmith, run(feedback_stats={"tone": {"n": 2, "avg": None, "values": {"a": 1, "b": 1}}})
    )
    assert isinstance(loaded, ParsedRecord)
    assert isinstance(refused, RejectedRecord)
    assert refused.reason == (
        "`feedback_stats.tone.values` has 2 values, expected one; the feedback itself "
        "(Client.list_feedback) says who gave which"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"key": "thumbs_up", "score": True}, ("thumb", "up"), id="thumb"),
        pytest.param({}, ("outcome", {"name": "user_score", "value": 1}), id="score"),
        pytest.param(
            {"score": None, "value": "good"},
            ("outcome", {"name": "user_score", "value": "good"}),
            id="value",
        ),
        pytest.param(
            {"score": None, "key": "note", "comment": "Wrong."}, ("comment", "Wrong."), id="note"
        ),
        pytest.param(
            {"score": None, "correction": {"role": "assistant", "content": "Rainy."}},
            ("correction", logs.say("Rainy.")),
            id="correction",
        ),
    ],
)
def test_feedback_is_a_signal_of_its_kind(changes: dict[str, Json], expected: tuple[str, Json]):
    row = feedback(**changes)
    assert langsmith.claims(row)
    signal = record(langsmith, row)
    assert (signal["kind"], signal["value"]) == expected
    assert (signal["target_id"], signal["actor_id"]) == (RUN, "api")


def test_what_corrects_an_evaluator_is_no_answer():
    assert record(langsmith, feedback(correction={"score": 0}))["kind"] == "outcome"
    score, correction = records(langsmith, feedback(correction="Rainy.", comment="No."))
    assert (score["kind"], score["comment"], correction["kind"]) == ("outcome", "No.", "correction")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            run(run_type="tool"),
            '`run_type` is "tool", expected llm: only calls of a model are interactions',
            id="tool",
        ),
        pytest.param(
            run(inputs={"messages": [MESSAGES, MESSAGES]}),
            "`inputs.messages` has 2 elements, expected those of one call",
            id="batch",
        ),
        pytest.param(
            run(inputs={"prompts": ["System: Be brief.\nHuman: Rome?"]}),
            "`inputs.prompts` are the messages of a chat as one text, expected `messages`",
            id="chat-as-text",
        ),
        pytest.param(
            run(inputs={}), "`inputs` is empty, expected messages or text", id="no-inputs"
        ),
        pytest.param(
            feedback(score=None),
            "`score` is missing, expected a number, or a value, a comment or a correction",
            id="no-score",
        ),
        pytest.param(
            feedback(run_id=None), "`run_id` is null, expected text", id="feedback-on-a-project"
        ),
    ],
)
def test_a_row_of_another_shape_is_refused_by_that_reason(row: dict[str, Json], expected: str):
    assert reason(langsmith, row) == expected


def test_a_run_without_its_id_is_refused():
    row = run()
    del row["id"]
    assert reason(langsmith, row) == "`id` is missing, expected text"


@pytest.mark.parametrize("score", [10**400, float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_refused(score: Json):
    assert reason(langsmith, feedback(score=score)).endswith("expected a finite number")


def test_runs_and_feedback_are_loaded_once_and_joined(con: Connection, tmp_path: Path):
    rows = [
        run(),
        run(),
        run(id="odd", start_time="soon"),
        run(id="deep", inputs=cast("Json", json.loads("[" * 300 + "]" * 300))),
        run(id="nul", outputs=generated(serialized("AIMessage", "a\x00b"))),
        run(id="half", outputs=generated(serialized("AIMessage", "\ud800"))),
        feedback(),
        feedback(),
        feedback(id="other", run_id=TRACE, key="resolved", score=True),
    ]
    path = logs.write(tmp_path / "runs.jsonl", rows)
    item = Input(str(path), defaults=Defaults("support", "shop"))
    loaded = logs.load_input(con, item, now=logs.NOW)
    assert (loaded.source, loaded.new, loaded.known, loaded.quarantined) == ("langsmith", 4, 2, 3)
    (join,) = survey.feedback(con)
    assert (join.kind, join.events, join.joined) == ("outcome", 2, 2)
