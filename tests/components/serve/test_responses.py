"""The Responses API of a gateway, asked by OpenAI's own client."""

import json
import time
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_input_param import ResponseInputParam
from openai.types.responses.tool_param import ToolParam
from pydantic import BaseModel, TypeAdapter

from tests.support import gateways, logs
from tests.support.gateways import RunningGateway, script
from tests.support.scripted_engine import ANSWER

WEATHER = cast("ToolParam", {"type": "function", **cast("Any", logs.WEATHER["function"])})
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

BEGUN = ["response.created", "response.in_progress"]
TEXT_BEGUN = ["response.output_item.added", "response.content_part.added"]
TEXT_ENDED = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
CALLED = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


class City(BaseModel):
    city: str


def events_of(gateway: RunningGateway, **body: Any) -> list[dict[str, Any]]:
    """Ask for a stream; return its events, each of which is what OpenAI's types say."""
    answer = gateway.post("/v1/responses", json={"model": "support", "stream": True, **body})
    assert answer.headers["content-type"] == "text/event-stream"
    assert "[DONE]" not in answer.text
    events: list[dict[str, Any]] = []
    for block in answer.text.split("\n\n")[:-1]:
        head, content = block.split("\n")
        event = json.loads(content.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        EVENT.validate_python(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    return events


def kinds_of(events: list[dict[str, Any]]) -> list[str]:
    """Return the types of events; those of text in several pieces are one."""
    kinds = [event["type"] for event in events]
    return [
        kind
        for kind, before in zip(kinds, ["", *kinds], strict=False)
        if kind != before or kind != "response.output_text.delta"
    ]


def test_openais_client_gets_an_answer_that_can_be_judged(gateway: RunningGateway):
    answer = gateway.openai.responses.create(model="support", input="Hi")
    assert answer.output_text == ANSWER
    assert (answer.status, answer.model, answer.incomplete_details) == (
        "completed",
        "support@7",
        None,
    )
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 9)
    vote = {"response_id": answer.id, "kind": "thumb", "value": "up"}
    assert gateway.post("/v1/feedback", json=vote).status_code == 200


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_an_answer_says_who_gave_it(gateway: RunningGateway, is_streamed: bool):
    body = {"model": "support", "input": "Hi", "stream": is_streamed}
    answer = gateway.post("/v1/responses", json=body)
    assert answer.headers["x-flywheel-version"] == "7"
    assert f'"id":"{answer.headers["x-request-id"]}"' in answer.text


def test_an_answer_has_all_that_openais_has_and_repeats_its_request(gateway: RunningGateway):
    text = {"format": {"type": "json_schema", "name": "city", "schema": City.model_json_schema()}}
    body = {
        "model": "support", "input": script(say='{"city": "Oslo"}'), "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "f"}], "text": text, "temperature": 0.5,
        "top_p": None, "metadata": {"a": "b"}, "max_output_tokens": 99, "user": "ann",
        "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": False,
    }  # fmt: skip
    answer = gateway.post("/v1/responses", json=body).json()
    Response.model_validate(answer)
    repeated = ("instructions", "text", "temperature", "metadata", "max_output_tokens", "user",
                "tool_choice", "parallel_tool_calls")  # fmt: skip
    assert {name: answer[name] for name in repeated} == {name: body[name] for name in repeated}
    assert answer["top_p"] == 1
    plain = gateway.post("/v1/responses", json={"model": "support", "input": "Hi"}).json()
    Response.model_validate(plain)
    assert (plain["tools"], plain["tool_choice"], plain["temperature"]) == ([], "auto", 0)


def test_a_text_streams_in_openais_events(gateway: RunningGateway):
    events = events_of(gateway, input="Hi")
    assert kinds_of(events) == [
        *BEGUN, *TEXT_BEGUN, "response.output_text.delta", *TEXT_ENDED, "response.completed",
    ]  # fmt: skip
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == ANSWER
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert last["output"] == [events[-2]["item"]]
    assert last["output"][0]["content"][0]["text"] == ANSWER
    assert (last["id"], last["usage"]["total_tokens"]) == (first["id"], 16)


def test_openais_client_gathers_a_streams_text_and_calls(gateway: RunningGateway):
    with gateway.openai.responses.stream(
        model="support", input=script(say=f"I look.\n{CALL}\n{CALL}"), tools=[WEATHER]
    ) as stream:
        events = [{"type": event.type} for event in stream]
        answer = stream.get_final_response()
    assert kinds_of(events) == [
        *BEGUN, *TEXT_BEGUN, "response.output_text.delta", *TEXT_ENDED, *CALLED, *CALLED,
        "response.completed",
    ]  # fmt: skip
    assert [item.type for item in answer.output] == ["message", "function_call", "function_call"]
    assert answer.output_text == "I look."
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Oslo"}] * 2
    assert len({*[call.id for call in calls], *[call.call_id for call in calls]}) == 4


def test_text_between_and_after_calls_streams_as_further_messages(gateway: RunningGateway):
    say = f"One.\n{CALL}\nTwo.\n{CALL}\nThree."
    events = events_of(gateway, input=script(say=say), tools=[WEATHER])
    items = events[-1]["response"]["output"]
    assert items == [
        event["item"] for event in events if event["type"] == "response.output_item.done"
    ]
    assert [item["type"] for item in items] == [
        "message", "function_call", "message", "function_call", "message",
    ]  # fmt: skip


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_an_answer_of_calls_alone_has_no_message(gateway: RunningGateway, is_streamed: bool):
    body: dict[str, Any] = {"input": script(say=CALL), "tools": [WEATHER]}
    if is_streamed:
        output = events_of(gateway, **body)[-1]["response"]["output"]
    else:
        output = gateway.post("/v1/responses", json={"model": "support", **body}).json()["output"]
    assert [item["type"] for item in output] == ["function_call"]


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_an_empty_answer_is_an_empty_message(gateway: RunningGateway, is_streamed: bool):
    body: dict[str, Any] = {"input": script(say="")}
    if is_streamed:
        answer = events_of(gateway, **body)[-1]["response"]
    else:
        answer = gateway.post("/v1/responses", json={"model": "support", **body}).json()
    assert answer["status"] == "completed"
    assert [item["content"][0]["text"] for item in answer["output"]] == [""]


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_an_answer_cut_by_its_length_is_incomplete(gateway: RunningGateway, is_streamed: bool):
    body: dict[str, Any] = {"input": script(say="one two", finish="length"), "max_output_tokens": 2}
    if is_streamed:
        last = events_of(gateway, **body)[-1]
        assert last["type"] == "response.incomplete"
        answer = last["response"]
    else:
        answer = gateway.post("/v1/responses", json={"model": "support", **body}).json()
    Response.model_validate(answer)
    assert (answer["status"], answer["output"][0]["status"]) == ("incomplete", "incomplete")
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert gateway.seen()["requests"][-1]["body"]["max_tokens"] == 2


@pytest.mark.parametrize("pieces", [["a ", "b"], ['{"a": ', "1} ", "b"]], ids=["text", "held"])
def test_logprobs_come_with_the_text_and_at_its_end(gateway: RunningGateway, pieces: list[str]):
    events = events_of(
        gateway,
        input=script(say="".join(pieces)),
        tools=[WEATHER],
        include=["message.output_text.logprobs"],
        top_logprobs=1,
    )
    deltas = [event["logprobs"] for event in events if event["type"].endswith("text.delta")]
    whole = events[-1]["response"]["output"][0]["content"][0]["logprobs"]
    for tokens in ([token for piece in deltas for token in piece], whole):
        assert [token["token"] for token in tokens] == pieces
        assert [top["token"] for top in tokens[0]["top_logprobs"]] == ["x"]


def test_a_form_is_asked_for_and_parsed(gateway: RunningGateway):
    answer = gateway.openai.responses.parse(
        model="support", input=script(say='{"city": "Oslo"}'), text_format=City
    )
    assert answer.output_parsed == City(city="Oslo")
    assert "city" in json.dumps(gateway.seen()["requests"][-1]["body"]["structured_outputs"])


ITEMS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "text": ("Hi", [{"role": "user", "content": "Hi"}]),
    "parts": (
        [{"role": "user", "content": [
            {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
        [{"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    ),
    "answer-before": (
        [
            {"role": "user", "content": "Hi"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "Yes?", "annotations": []}]},
            {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        ],
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "developer", "content": "Be brief."},
        ],
    ),
    "parallel-calls": (
        [
            {"role": "user", "content": "Rain?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "x"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "dry"},
            {"type": "function_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "wet"}]},
        ],
        [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "dry"},
            {"role": "tool", "tool_call_id": "c2", "content": "wet"},
        ],
    ),
    "call-then-text": (
        [
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call_output", "call_id": "c1", "output": "dry"},
        ],
        [
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "dry"},
        ],
    ),
    "text-between-calls": (
        [
            {"role": "assistant", "content": "One."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"role": "assistant", "content": "Two."},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"role": "assistant", "content": "Three."},
            {"type": "function_call_output", "call_id": "c1", "output": "dry"},
        ],
        [
            {"role": "assistant", "content": [
                {"type": "text", "text": text} for text in ("One.", "Two.", "Three.")],
             "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "dry"},
        ],
    ),
}  # fmt: skip


def test_the_log_has_the_chat_that_the_version_read(tmp_path: Path):
    more: dict[str, Any] = {
        "instructions": "Be kind.", "tools": [{**cast("Any", WEATHER), "strict": None}],
        "tool_choice": {"type": "function", "name": "weather"}, "max_output_tokens": 20,
        "text": {"format": {"type": "json_object"}, "verbosity": "medium"}, "user": "ann",
        "metadata": {"conversation_id": "c-1"}, "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": None, "summary": "auto"}, "truncation": "disabled",
    }  # fmt: skip
    as_chat: dict[str, Any] = {
        "model": "support", "tools": [logs.WEATHER], "max_completion_tokens": 20, "user": "ann",
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_object"}, "metadata": {"conversation_id": "c-1"},
    }  # fmt: skip
    with gateways.running(tmp_path) as gateway:
        answers = [
            gateway.post("/v1/responses", json={"model": "support", "input": sent, **more}).json()
            for sent, _ in ITEMS.values()
        ]
        gateway.stop()
        records = gateway.records()
    for (_, messages), answer, record in zip(ITEMS.values(), answers, records, strict=True):
        system = {"role": "system", "content": "Be kind."}
        assert record["request"] == {**as_chat, "messages": [system, *messages]}
        assert (record["user_id"], record["conversation_id"]) == ("ann", "c-1")
        assert record["response"]["object"] == "chat.completion"
        assert record["response"]["id"] == answer["id"]
        message = record["response"]["choices"][0]["message"]
        assert message["content"] == answer["output"][0]["content"][0]["text"]


def test_tools_are_called_over_two_turns_as_a_chats_are(gateway: RunningGateway):
    question = script(say=CALL) + "Rain?"
    items: ResponseInputParam = [{"role": "user", "content": question}]
    for is_streamed in (False, True):
        if is_streamed:
            with gateway.openai.responses.stream(
                model="support", input=items, tools=[WEATHER]
            ) as stream:
                answer: Any = stream.get_final_response()
        else:
            answer = gateway.openai.responses.create(model="support", input=items, tools=[WEATHER])
        (call,) = answer.output
        items += answer.output
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": "dry"})
    gateway.openai.responses.create(model="support", input=items, tools=[WEATHER])
    by_responses = gateway.seen()["requests"][-1]["body"]["prompt"]
    called = [
        [
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
            {"role": "tool", "tool_call_id": "c", "content": "dry"},
        ]
        for _ in range(2)
    ]  # fmt: skip
    messages = [{"role": "user", "content": question}, *called[0], *called[1]]
    body = {"model": "support", "messages": messages, "tools": [logs.WEATHER]}
    gateway.post("/v1/chat/completions", json=body)
    assert gateway.seen()["requests"][-1]["body"]["prompt"] == by_responses


def test_what_is_about_tools_may_come_without_any(gateway: RunningGateway):
    body = {"model": "support", "input": "Hi", "tools": [], "tool_choice": "auto",
            "parallel_tool_calls": False, "client_metadata": {"x": "y"}}  # fmt: skip
    assert gateway.post("/v1/responses", json=body).json()["status"] == "completed"


def test_a_cut_stream_fails_for_whom_reads_events_and_whom_does_not(tmp_path: Path):
    asked = script(say="one two three four", cut=2)
    with gateways.running(tmp_path) as gateway:
        events = events_of(gateway, input=asked)
        failed, error = events[-2:]
        assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
        assert failed["response"]["error"]["code"] == "server_error"
        assert error["error"]["message"] == failed["response"]["error"]["message"]
        texts: list[str] = []
        stream = gateway.openai.responses.create(model="support", input=asked, stream=True)
        with pytest.raises(openai.APIError):
            texts += [event.delta for event in stream if event.type == "response.output_text.delta"]
        gateway.stop()
        records = gateway.records()
    assert [record["finish"] for record in records] == ["upstream_cut"] * 2
    assert {record["response"]["choices"][0]["message"]["content"] for record in records} == {
        "one two"
    }


def test_a_client_that_goes_away_leaves_a_partial_record(tmp_path: Path):
    with gateways.running(tmp_path) as gateway:
        slow = script(say="one two three four five six seven eight", delay=0.3)
        stream = gateway.openai.responses.create(model="support", input=slow, stream=True)
        next(event for event in stream if event.type == "response.output_text.delta")
        stream.close()
        deadline = time.monotonic() + 10
        while gateway.seen()["cancelled"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        gateway.stop()
        (record,) = gateway.records()
    assert record["finish"] == "client_gone"
    assert record["response"]["choices"][0]["message"]["content"].startswith("one")


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_an_answer_that_is_not_to_be_stored_is_not(tmp_path: Path, is_streamed: bool):
    with gateways.running(tmp_path) as gateway:
        body = {"model": "support", "input": "Hi", "store": False, "stream": is_streamed}
        answer = gateway.post("/v1/responses", json=body)
        vote = {"response_id": answer.headers["x-request-id"], "kind": "thumb", "value": "up"}
        refused = gateway.post("/v1/feedback", json=vote)
        gateway.stop()
        assert gateway.records() == []
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "response_not_stored")


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "support", "input": "Hi", **fields}


def of_items(*items: Any) -> dict[str, Any]:
    return asked(input=[{"role": "user", "content": "Hi"}, *items])


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "previous": (asked(previous_response_id="resp_1"), "previous_response_id", "whole convers"),
    "conversation": (asked(conversation={"id": "conv_1"}), "conversation", "the whole one in"),
    "background": (asked(background=True), "background", "wait or stream"),
    "prompt": (asked(prompt={"id": "pmpt_1"}), "prompt", "send `instructions`"),
    "truncation": (asked(truncation="auto"), "truncation", "leave it out"),
    "reasoning": (asked(reasoning={"effort": "low"}), "reasoning.effort", "leave it out"),
    "verbosity": (asked(text={"verbosity": "low"}), "text.verbosity", "expected 'medium'"),
    "compaction": (asked(context_management=[{"type": "compaction"}]), "context_management",
                   "leave it out"),
    "of-chats": (asked(messages=[]), "messages", "Unknown parameter"),
    "no-input": ({"model": "support"}, "input", "it is missing, expected text or an array"),
    "empty-input": (asked(input=[]), "input", "at least 1 item"),
    "input-of-texts": (asked(input=["Hi"]), "input[0]", "expected an object"),
    "role": (of_items({"role": "bot", "content": "x"}), "input[1].role", "one of system"),
    "result-of-chats": (of_items({"role": "tool", "tool_call_id": "c", "content": "x"}),
                        "input[1]", "'type': 'function_call_output', 'call_id'"),
    "calls-of-chats": (
        of_items({"role": "assistant", "content": "I look.", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
        "input[1]", "'type': 'function_call', 'call_id'",
    ),
    "no-content": (of_items({"role": "user"}), "input[1].content", "it is missing"),
    "image": (
        of_items({"role": "user", "content": [
            {"type": "input_image", "image_url": "https://x.test/a.png"}]}),
        "input[1].content[0].type", "is \"input_image\", expected 'text'",
    ),
    "image-as-output": (
        of_items({"type": "function_call_output", "call_id": "c", "output": [
            {"type": "input_image", "image_url": "https://x.test/a.png"}]}),
        "input[1].output[0].type", "is \"input_image\", expected 'text'",
    ),
    "image-of-an-answer": (
        of_items({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                 {"role": "assistant", "content": [{"type": "input_image"}]}),
        "input[2].content[0].type", "expected one of text, refusal",
    ),
    "reference": (of_items({"type": "item_reference", "id": "msg_1"}), "input[1].type",
                  "expected one of message"),
    "search-of-openai": (of_items({"type": "web_search_call", "id": "ws_1"}), "input[1].type",
                         "expected one of message, function_call, function_call_output, reasoning"),
    "call-without-id": (of_items({"type": "function_call", "name": "f", "arguments": "{}"}),
                        "input[1].call_id", "it is missing, expected text"),
    "output-of-nothing": (of_items({"type": "function_call_output", "call_id": "c"}),
                          "input[1].output", "it is missing, expected text or an array"),
    "arguments": (
        of_items({"role": "assistant", "content": "I look."},
                 {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                 {"type": "function_call", "call_id": "d", "name": "f", "arguments": "{"}),
        "input[3].arguments", "not the JSON text of an object",
    ),
    "tool-of-openai": (asked(tools=[{"type": "web_search"}]), "tools[0].type",
                       "is \"web_search\", expected 'function'"),
    "tool-of-chats": (asked(tools=[logs.WEATHER]), "tools[0].name", "it is missing, expected text"),
    "tool-name": (asked(tools=[{"type": "function", "name": "no spaces"}]), "tools[0].name",
                  "{1,64}"),
    "tools-object": (asked(tools={}), "tools", "an array"),
    "many-tools": (asked(tools=[{"type": "function", "name": f"f{n}"} for n in range(129)]),
                   "tools", "at most 128"),
    "many-items": (of_items(*[{"type": "reasoning"}] * 4096), "input", "at most 4096"),
    "tools-text": (asked(tools="web"), "tools", "an array"),
    "choice-of-chats": (
        asked(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "weather"}}),
        "tool_choice.name", "it is missing, expected text",
    ),
    "choice-of-openais": (asked(tool_choice={"type": "web_search"}), "tool_choice.type",
                          "expected 'function'"),
    "choice-of-another": (
        asked(tools=[WEATHER], tool_choice={"type": "function", "name": "x"}),
        "tool_choice", "offered: weather",
    ),
    "required-of-nothing": (asked(tool_choice="required"), "tool_choice", "`tools` are offered"),
    "format-of-chats": (
        asked(text={"format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
        "text.format.schema", "it is missing, expected an object",
    ),
    "format-impossible": (
        asked(text={"format": {"type": "json_schema", "name": "x", "schema": {
            "type": "object", "properties": {"a": {"pattern": "("}}}}}),
        "text.format", "change the schema",
    ),
    "text": (asked(text="json"), "text", "expected an object"),
    "length": (asked(max_output_tokens=0), "max_output_tokens", "greater than or equal to 1"),
    "temperature": (asked(temperature=3), "temperature", "less than or equal to 2"),
    "include": (asked(include="all"), "include", "an array"),
    "metadata": (asked(metadata={"a": 1}), "metadata.a", "expected text"),
    "instructions": (asked(instructions=[]), "instructions", "expected text"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "param", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_by_its_own_name(
    gateway: RunningGateway, body: dict[str, Any], param: str, expected: str
):
    answer = gateway.post("/v1/responses", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert expected in error["message"]
    assert "messages" not in error["message"].replace("'messages'", "") or param == "messages"


def test_answers_can_not_be_fetched(gateway: RunningGateway):
    answer = gateway.openai.responses.create(model="support", input="Hi")
    with pytest.raises(openai.NotFoundError, match="known: /v1/chat/completions"):
        gateway.openai.responses.retrieve(answer.id)
