import pytest

from components.collect.source import ParsedRecord
from components.extensions.sources import openpipe
from components.schema import Json
from tests.support import logs
from tests.support.source_reading import read, reason, record

QUESTION: dict[str, Json] = {"role": "user", "content": "What is the weather in Rome?"}
REQUEST: dict[str, Json] = {
    "model": "openpipe:weather-ft",
    "tools": [logs.WEATHER],
    "messages": [QUESTION],
}
COMPLETION: dict[str, Json] = {
    "id": "c7670af0d71648b0bd829fa1901ac6c5",
    "model": "openpipe:weather-ft",
    "usage": {"total_tokens": 106, "prompt_tokens": 47, "completion_tokens": 59},
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": logs.call("weather", '{"city": "Rome"}'),
            "finish_reason": "stop",
        }
    ],
    "created": 1_702_666_185_703,
}


def test_a_logged_request_is_an_interaction_field_by_field():
    row: dict[str, Json] = {
        "input": REQUEST,
        "output": COMPLETION,
        "tags": {"prompt_id": "weather", "$sdk": "python"},
    }
    assert openpipe.claims(row)
    assert record(openpipe, row) == {
        "timestamp": 1_702_666_185.703,
        "workload_id": "support",
        "client_id": "shop",
        "request": REQUEST,
        "response": COMPLETION,
        "metadata": {"prompt_id": "weather", "$sdk": "python"},
    }


def test_a_time_in_seconds_is_not_converted():
    row: dict[str, Json] = {"input": REQUEST, "output": COMPLETION | {"created": 1_702_666_185}}
    assert record(openpipe, row)["timestamp"] == 1_702_666_185


def test_a_dataset_row_is_an_interaction_answered_by_its_last_message():
    row: dict[str, Json] = {
        "messages": [QUESTION, logs.say("Sunny.")],
        "tools": [logs.WEATHER],
        "tool_choice": "auto",
        "split": "TRAIN",
    }
    assert openpipe.claims(row)
    interaction = record(openpipe, row)
    response = interaction.pop("response")
    assert interaction == {
        "timestamp": 0,
        "workload_id": "support",
        "client_id": "shop",
        "request": {"messages": [QUESTION], "tools": [logs.WEATHER], "tool_choice": "auto"},
        "metadata": {"split": "TRAIN"},
    }
    assert isinstance(response, dict)
    assert str(response["id"]).startswith("op-")
    assert response["choices"] == [
        {"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}
    ]


def test_a_rejected_message_is_the_other_side_of_a_choice():
    row: dict[str, Json] = {
        "messages": [QUESTION, logs.say("Sunny.")],
        "rejected_message": logs.say("No idea."),
        "split": "TEST",
    }
    interaction, choice = read(openpipe, row)
    assert isinstance(interaction, ParsedRecord)
    assert isinstance(choice, ParsedRecord)
    response = interaction.record["response"]
    assert isinstance(response, dict)
    assert choice.record == {
        "timestamp": 0,
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "annotator",
        "kind": "choice",
        "value": {"chosen": logs.say("Sunny."), "rejected": logs.say("No idea.")},
        "response_id": response["id"],
    }


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"input": REQUEST, "output": None},
            "`output` is null, expected an object",
            id="no-output",
        ),
        pytest.param(
            {"input": REQUEST, "output": {"error": {"message": "overloaded"}}},
            "`output.error` is an object, expected a response with `choices`",
            id="failed",
        ),
        pytest.param(
            {"input": REQUEST, "output": COMPLETION | {"created": "2023"}},
            "`output.created` is text, expected a number",
            id="time",
        ),
        pytest.param(
            {"input": REQUEST, "output": COMPLETION, "tags": "x"},
            "`tags` is text, expected an object",
            id="tags",
        ),
        pytest.param(
            {"messages": [QUESTION], "split": "TRAIN"},
            "`messages` has 1 elements, expected a request and an answer",
            id="unanswered",
        ),
        pytest.param(
            {"messages": [QUESTION, logs.say("a")], "split": "TRAIN", "rejected_message": "b"},
            "`rejected_message` is text, expected an object",
            id="rejected",
        ),
    ],
)
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(openpipe, row) == expected


@pytest.mark.parametrize("created", [10**400, float("nan"), float("inf")])
def test_a_time_that_is_not_finite_is_refused(created: Json):
    row: dict[str, Json] = {"input": REQUEST, "output": COMPLETION | {"created": created}}
    assert reason(openpipe, row).endswith("expected a finite number")
