"""What counts as a bad answer, and which feedback as a dislike."""

import json
import time
import tracemalloc
from typing import Any

import pytest

from components.chat.dialects import Dialect
from components.extensions.canary import answer_faults
from components.schema import Json
from components.serve import chat_request
from components.serve.chat_request import ChatRequest

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"order": {"type": "integer"}},
            "required": ["order"],
        },
    },
}
CALL = '{"name": "find", "arguments": {"order": 7}}'
SCHEMA = {"type": "array", "items": {"type": "integer"}}


def chat(**changes: Any) -> ChatRequest:
    body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], **changes}
    return chat_request.read_chat(json.dumps(body).encode())


TEXT, TOOLS = chat(), chat(tools=[TOOL])
MUST = chat(tools=[TOOL], tool_choice="required")
NONE = chat(tools=[TOOL], tool_choice="none")
OBJECT = chat(response_format={"type": "json_object"})
ARRAY = chat(
    response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
)
EITHER = chat(tools=[TOOL], response_format={"type": "json_object"})


@pytest.mark.parametrize(
    ("request_", "text", "finish", "faults"),
    [
        pytest.param(TEXT, "Hello", "stop", set(), id="text"),
        pytest.param(TEXT, "", None, {"error"}, id="failed"),
        pytest.param(TEXT, "Hel", "upstream_cut", {"error"}, id="broken-off"),
        pytest.param(TEXT, "", "client_gone", set(), id="client-left"),
        pytest.param(TEXT, " \n", "stop", {"cut"}, id="empty"),
        pytest.param(TOOLS, CALL[:20], "length", {"cut"}, id="too-long"),
        pytest.param(TEXT, '{"name": "x"', "stop", set(), id="braces-without-tools"),
        pytest.param(TOOLS, CALL, "tool_calls", set(), id="call"),
        pytest.param(TOOLS, "No tool fits.", "stop", set(), id="abstention"),
        pytest.param(TOOLS, CALL[:-1], "stop", {"invalid"}, id="call-that-is-no-json"),
        pytest.param(TOOLS, "f() { return }", "stop", set(), id="braces-of-code"),
        pytest.param(TOOLS, CALL + "f() {", "tool_calls", set(), id="braces-beside-a-call"),
        pytest.param(
            TOOLS, CALL + CALL[:-1], "tool_calls", {"invalid"}, id="second-call-is-no-json"
        ),
        pytest.param(
            TOOLS, CALL.replace("find", "sell"), "tool_calls", {"invalid"}, id="not-offered"
        ),
        pytest.param(TOOLS, CALL.replace("7", '"a"'), "tool_calls", {"invalid"}, id="wrong-type"),
        pytest.param(NONE, "{", "stop", set(), id="no-call-allowed"),
        pytest.param(MUST, "Hello", "stop", {"invalid"}, id="must-call"),
        pytest.param(MUST, CALL, "tool_calls", set(), id="must-call-and-does"),
        pytest.param(OBJECT, '{"a": [1]}', "stop", set(), id="object"),
        pytest.param(OBJECT, "[1]", "stop", {"invalid"}, id="not-an-object"),
        pytest.param(OBJECT, '{"a": ', "stop", {"invalid"}, id="not-json"),
        pytest.param(ARRAY, "[1, 2]", "stop", set(), id="schema"),
        pytest.param(ARRAY, '["a"]', "stop", {"invalid"}, id="not-its-schema"),
        pytest.param(EITHER, '{"a": 1}', "stop", set(), id="json-instead-of-a-call"),
        pytest.param(EITHER, CALL, "tool_calls", set(), id="call-instead-of-json"),
        pytest.param(EITHER, "Hello", "stop", {"invalid"}, id="neither"),
    ],
)
def test_faults_of_an_answer(
    request_: ChatRequest, text: str, finish: str | None, faults: set[str]
):
    assert answer_faults.faults(request_, "written", text, finish) == faults


@pytest.mark.parametrize(
    ("own", "limit", "faults"), [(1, 64, set()), (64, 64, {"cut"}), (64, None, set())]
)
def test_what_a_request_cuts_by_its_own_limit_is_no_fault(
    own: int, limit: int | None, faults: set[str]
):
    asked = chat(max_tokens=own)
    assert answer_faults.faults(asked, "written", "Hel", "length", limit=limit) == faults


def test_a_schema_that_takes_long_to_check_holds_nobody_up():
    choices: list[Json] = [{"number": number} for number in range(10_000)]
    schema = {"type": "array", "items": {"enum": choices}}
    asked = chat(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    )
    began = time.process_time()
    assert not answer_faults.faults(asked, "written", json.dumps(choices[-1000:]), "stop")
    assert time.process_time() - began < 0.5


def test_labels_are_the_only_answers_where_no_tools_are_offered():
    labels = ("billing", "returns")
    assert not answer_faults.faults(TEXT, "written", " billing\n", "stop", labels)
    assert answer_faults.faults(TEXT, "written", "Billing", "stop", labels) == {"invalid"}
    assert not answer_faults.faults(TOOLS, "written", "Billing", "stop", labels)
    assert answer_faults.faults(NONE, "written", "Billing", "stop", labels) == {"invalid"}


@pytest.mark.parametrize("form", ["hermes", "llama3"])
def test_calls_are_read_in_the_versions_own_form(form: Dialect):
    body = CALL if form == "hermes" else CALL.replace("arguments", "parameters")
    text = f"<tool_call>\n{body}\n</tool_call>" if form == "hermes" else body
    assert not answer_faults.faults(TOOLS, form, text, "tool_calls")
    assert answer_faults.faults(TOOLS, form, text.replace("7}", "7"), "stop") == {"invalid"}


def test_long_descriptions_of_many_clients_do_not_stay_in_memory():
    tracemalloc.start()
    for number in range(20):
        function = {**TOOL["function"], "description": f"{number} {'x' * 2**20}"}
        request = chat(tools=[{"type": "function", "function": function}])
        assert answer_faults.faults(request, "written", CALL, "stop") == set()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * 2**20  # of 20 MiB that were sent, the last one's


def test_a_completion_is_never_invalid():
    request = chat_request.read_completion(b'{"model": "support", "prompt": "{"}')
    assert not answer_faults.faults(request, "written", "{", "stop")


@pytest.mark.parametrize(
    ("kind", "value", "is_dislike"),
    [
        ("thumb", "down", True),
        ("thumb", "up", False),
        ("correction", {"content": "x"}, True),
        ("correction", None, False),
        ("thumb", None, False),
        ("regenerate", True, True),
        ("comment", "down", False),
    ],
)
def test_dislikes(kind: str, value: Json, is_dislike: bool):
    assert answer_faults.is_dislike(kind, value) is is_dislike
