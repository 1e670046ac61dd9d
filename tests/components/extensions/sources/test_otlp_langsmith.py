"""Spans of LangSmith's SDK (0.15.1), which have a run's inputs and outputs as JSON."""

import json

import pytest

from components.extensions.sources import otlp
from components.schema import Json
from tests.support import logs
from tests.support.otlp_requests import attribute, span, text
from tests.support.source_reading import read, reason, record


def run(inputs: Json, outputs: Json, kind: str = "llm", **more: Json) -> dict[str, Json]:
    """Write a span of a run; ``more`` are changes of the span."""
    held = {
        "langsmith.span.kind": kind,
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o",
        "langsmith.metadata.thread_id": "t-1",
        "langsmith.metadata.user_id": "u-7",
        "langsmith.metadata.workload_id": "weather",
        "gen_ai.prompt": json.dumps(inputs),
        "gen_ai.completion": json.dumps(outputs),
    }
    attributes: list[Json] = [text(key, value) for key, value in held.items()]
    attributes.append(attribute("gen_ai.usage.input_tokens", {"intValue": "10"}))
    return span(**{"attributes": attributes, **more})


def message(kind: str, **more: Json) -> Json:
    """Write a message as LangChain serializes it."""
    where: Json = ["langchain", "schema", "messages", f"{kind.title()}Message"]
    return {"lc": 1, "type": "constructor", "id": where, "kwargs": {"type": kind, **more}}


def generated(answer: Json, finish: str = "stop") -> Json:
    generation: Json = {"text": "", "message": answer, "generation_info": {"finish_reason": finish}}
    return {"generations": [[generation]], "llm_output": None, "type": "LLMResult"}


def test_a_call_of_a_wrapped_client_is_an_interaction():
    inputs: Json = {
        "messages": [{"role": "user", "content": "Weather in Rome?"}],
        "model": "gpt-4o",
        "temperature": 0.5,
        "tools": [logs.WEATHER],
    }
    answered = logs.call("weather", '{"city": "Rome"}')
    choice: Json = {"index": 0, "message": answered, "finish_reason": "tool_calls"}
    outputs: Json = {"id": "chatcmpl-7", "object": "chat.completion", "choices": [choice]}
    interaction = record(otlp, run(inputs, outputs))
    assert interaction["request"] == inputs
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [choice]
    assert response["usage"] == {"prompt_tokens": 10}
    names = ("conversation_id", "user_id", "workload_id")
    assert [interaction[name] for name in names] == ["t-1", "u-7", "weather"]
    assert "finish" not in interaction


def test_messages_of_langchain_are_read_as_they_were_sent():
    call: Json = {"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}
    asked = [
        message("system", content="Be brief."),
        message("human", content="Weather in Rome?"),
        message("ai", content="", tool_calls=[call]),
        message("tool", content="Dry.", tool_call_id="c1"),
    ]
    outputs = generated(message("ai", content="It is dry."))
    interaction = record(otlp, run({"messages": [asked]}, outputs))
    request, response = interaction["request"], interaction["response"]
    assert isinstance(request, dict)
    assert isinstance(response, dict)
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Rome"}},
                }
            ],
        },
        {"role": "tool", "content": "Dry.", "tool_call_id": "c1"},
    ]
    assert response["choices"] == [
        {"index": 0, "message": logs.say("It is dry."), "finish_reason": "stop"}
    ]


@pytest.mark.parametrize("kind", ["chain", "prompt", "parser", "tool", "retriever", "embedding"])
def test_other_runs_are_skipped(kind: str):
    assert read(otlp, run({"q": "Rain?"}, {"output": "Dry."}, kind)) == []


def test_a_failed_run_has_no_answer_and_a_stream_that_was_left_has_a_part():
    asked: Json = {"messages": [{"role": "user", "content": "Rain?"}]}
    failed = run(asked, {"generations": [[]], "type": "LLMResult"}, status={"code": 2})
    assert "failed" in reason(otlp, failed)
    left: Json = {"index": 0, "message": logs.say("It is"), "finish_reason": None}
    chunk: Json = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "choices": [left]}
    assert record(otlp, run(asked, chunk))["finish"] == "upstream_cut"


def test_numbered_messages_of_another_instrumentation_are_read_as_they_are():
    numbered = span(
        text("langsmith.span.kind", "LLM"),
        text("gen_ai.prompt.0.role", "user"),
        text("gen_ai.prompt.0.content", "Rain?"),
        text("gen_ai.completion.0.content", "Dry."),
    )
    request = record(otlp, numbered)["request"]
    assert request == {"messages": [{"role": "user", "content": "Rain?"}]}
