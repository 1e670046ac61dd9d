"""Calls of models that W&B Weave traced, as it exports them."""

import pytest

from components.collect import files
from components.collect.source import ParsedRecord, RejectedRecord
from components.extensions.sources import weave
from components.schema import Json
from tests.support import logs, openai_completions
from tests.support.source_reading import read, reason, record, records

CLIENT: Json = "weave:///team/project/object/OpenAI:abc"
TOOL_CALL: Json = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
}


def completion(**changes: Json) -> dict[str, Json]:
    """Write a completion as Weave does an object of OpenAI's client."""
    added: dict[str, Json] = {"_type": "ChatCompletion", "_class_name": "C", "_bases": []}
    written = openai_completions.completion(id="chatcmpl-1", choices=[choice()])
    return added | written | changes


def choice(**changes: Json) -> dict[str, Json]:
    """Write a choice, with what Weave adds to it."""
    written: dict[str, Json] = {
        "_type": "Choice",
        "_class_name": "Choice",
        "_bases": ["BaseModel"],
        "index": 0,
        "message": logs.say("Sunny."),
        "finish_reason": "stop",
    }
    return written | changes


def call(**changes: Json) -> dict[str, Json]:
    """Write a call of OpenAI's client."""
    messages: Json = [{"role": "user", "content": "Rome?"}]
    row: dict[str, Json] = {
        "id": "0190-call",
        "project_id": "team/project",
        "op_name": "weave:///team/project/op/openai.chat.completions.create:v1abc",
        "display_name": None,
        "trace_id": "0190-trace",
        "parent_id": "0190-parent",
        "thread_id": "thread-1",
        "started_at": "2025-10-09T08:53:20.000000Z",
        "ended_at": "2025-10-09T08:53:20.750000Z",
        "attributes": {"weave": {"client_version": "0.51"}, "tenant": "a", "user_id": "u-7"},
        "inputs": {
            "self": CLIENT,
            "model": "gpt-4o",
            "messages": messages,
            "temperature": 0.2,
            "timeout": None,
        },
        "output": completion(),
        "exception": None,
        "summary": {"usage": {}},
        "wb_user_id": "VXNlcjox",
    }
    return row | changes


def test_a_call_is_an_interaction_field_by_field():
    assert files.detect_source([call()]) is weave
    plain = openai_completions.completion(
        id="chatcmpl-1",
        choices=[{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}],
    )
    assert record(weave, call()) == {
        "timestamp": "2025-10-09T08:53:20.000000Z",
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "Rome?"}],
            "temperature": 0.2,
        },
        "response": plain,
        "conversation_id": "thread-1",
        "user_id": "u-7",
        "trace_id": "0190-trace",
        "duration_ms": 750.0,
        "metadata": {"tenant": "a", "user_id": "u-7"},
    }


def test_tool_calls_and_several_choices_are_kept():
    called = choice(message={"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]})
    converted = record(weave, call(output=completion(choices=[called, choice(index=1)])))
    match converted["response"]:
        case {"choices": [{"message": {"tool_calls": [made]}}, {"message": {"content": "Sunny."}}]}:
            assert made == TOOL_CALL
        case other:
            pytest.fail(f"{other}")


def test_a_call_of_anthropics_client_becomes_chat():
    inputs: Json = {
        "self": "weave:///team/project/object/Anthropic:abc",
        "model": "claude-sonnet-4-5",
        "max_tokens": 9,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Oslo?"}],
    }
    output: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"_type": "x"}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    operation = "weave:///team/project/op/anthropic.Messages.create:v1"
    converted = record(weave, call(op_name=operation, inputs=inputs, output=output))
    match converted:
        case {"request": {"messages": [first, _]}, "response": {"choices": [{"message": told}]}}:
            assert first == {"role": "system", "content": "Be brief."}
            assert isinstance(told, dict)
            match told["tool_calls"]:
                case [{"function": {"name": "weather", "arguments": arguments}}]:
                    assert arguments in ({"_type": "x"}, '{"_type": "x"}')
                case other:
                    pytest.fail(f"{other}")
        case other:
            pytest.fail(f"{other}")


def test_of_a_call_within_another_one_of_a_model_the_inner_one_counts():
    outer = call(id="outer", op_name="weave:///t/p/op/litellm.completion:v1")
    for order in ((outer, call(parent_id="outer")), (call(parent_id="outer"), outer)):
        both = read(weave, *order)
        (inner,) = (each for each in both if isinstance(each, ParsedRecord))
        assert inner.row.value["id"] == "0190-call"
        (refused,) = (each for each in both if isinstance(each, RejectedRecord))
        assert refused.reason == "the call made another one of a model, expected the inner one"
    assert record(weave, outer)["response"] == record(weave, call())["response"]


def test_a_stream_that_broke_off_or_an_error_after_an_answer_is_marked():
    cut = logs.without(choice(), "finish_reason")
    assert record(weave, call(output=completion(choices=[cut])))["finish"] == "upstream_cut"
    assert record(weave, call(exception="Timeout"))["finish"] == "upstream_cut"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"output": None, "exception": "RateLimitError: 429"},
            "`output` is missing, expected an answer: RateLimitError: 429",
            id="failed",
        ),
        pytest.param(
            {"op_name": "weave:///team/project/op/answer_question:v3"},
            '`op_name` is "weave:///team/project/op/answer_question:v3", expected the call of a '
            "model",
            id="own-function",
        ),
        pytest.param(
            {"inputs": {"model": "gpt-4o", "messages": "weave:///team/project/object/prompt:v2"}},
            '`inputs.messages` is "weave:///team/project/object/prompt:v2", expected the value; '
            "the export has a reference to it",
            id="reference",
        ),
        pytest.param(
            {"deleted_at": "2025-10-10T00:00:00Z"},
            "`deleted_at` is text, expected a call that is not deleted",
            id="deleted",
        ),
    ],
)
def test_what_can_not_be_learned_from_is_refused(changes: dict[str, Json], expected: str):
    assert reason(weave, call(**changes)) == expected


def test_reactions_and_notes_are_feedback_about_the_answer():
    def said(kind: str, **payload: Json) -> Json:
        created = "2025-10-09 09:00:00.000000+00:00"
        return {"feedback_type": kind, "payload": payload, "created_at": created, "creator": "ann"}

    feedback: Json = [
        said("wandb.reaction.1", emoji="\N{THUMBS DOWN SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}"),
        said("wandb.note.1", note="Too short."),
        said("wandb.reaction.1", emoji="\N{PARTY POPPER}"),
    ]
    _, vote, note, other = records(weave, call(summary={"weave": {"feedback": feedback}}))
    assert (vote["kind"], vote["value"]) == ("thumb", "down")
    assert (vote["response_id"], vote["actor_id"]) == ("chatcmpl-1", "ann")
    assert (note["kind"], note["value"]) == ("comment", "Too short.")
    assert (other["kind"], other["value"]) == (
        "outcome",
        {"name": "reaction", "value": "\N{PARTY POPPER}"},
    )
    scored = said("wandb.runnable.accuracy", output=1)
    one, refused = read(weave, call(summary={"weave": {"feedback": [scored]}}))
    assert isinstance(one, ParsedRecord)
    assert isinstance(refused, RejectedRecord)
    assert "feedback_type" in refused.reason
