import json

import pytest

from components.extensions.sources import sharegpt
from components.schema import Json
from tests.support import logs
from tests.support.source_reading import reason, record, records

ARGUMENTS: Json = {"city": "Rome"}
ASKED: list[Json] = [
    {"from": "human", "value": "What is the weather in Rome?"},
    {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": ARGUMENTS})},
    {"from": "observation", "value": "sunny"},
]
CALLING: dict[str, Json] = {
    "system": "Be brief.",
    "conversations": [*ASKED, {"from": "gpt", "value": "Sunny."}],
    "tools": json.dumps([{"name": "weather", "description": "Tell it", "parameters": {}}]),
}
CHOSEN: dict[str, Json] = {
    "conversations": [{"from": "human", "value": "Rome?"}],
    "chosen": {"from": "gpt", "value": "Sunny."},
    "rejected": {"from": "gpt", "value": "No idea."},
}


def test_a_conversation_is_an_interaction_answered_by_its_last_turn():
    assert sharegpt.claims(CALLING)
    interaction = record(sharegpt, CALLING)
    function: Json = {"name": "weather", "arguments": ARGUMENTS}
    assert interaction["request"] == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the weather in Rome?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": function}],
            },
            {"role": "tool", "content": "sunny"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tell it", "parameters": {}},
            }
        ],
    }
    response = interaction["response"]
    assert isinstance(response, dict)
    assert response["choices"] == [
        {"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}
    ]
    assert (interaction["timestamp"], interaction["workload_id"], interaction["client_id"]) == (
        0,
        "support",
        "shop",
    )


def test_two_answers_are_an_interaction_with_the_chosen_and_a_choice_about_it():
    assert sharegpt.claims(CHOSEN)
    interaction, choice = records(sharegpt, CHOSEN)
    assert interaction["request"] == {"messages": [{"role": "user", "content": "Rome?"}]}
    response = interaction["response"]
    assert isinstance(response, dict)
    assert choice["response_id"] == response["id"]
    assert (choice["kind"], choice["value"]) == (
        "choice",
        {"chosen": logs.say("Sunny."), "rejected": logs.say("No idea.")},
    )


@pytest.mark.parametrize(("label", "thumb"), [(True, "up"), (False, "down")])
def test_a_label_is_a_thumb(label: bool, thumb: str):
    question: Json = {"role": "user", "content": "Rome?"}
    row: dict[str, Json] = {"messages": [question, logs.say("Sunny.")], "label": label}
    assert sharegpt.claims(row)
    interaction, vote = records(sharegpt, row)
    assert interaction["request"] == {"messages": [question]}
    assert (vote["kind"], vote["value"]) == ("thumb", thumb)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"conversations": [{"from": "bot", "value": "Hi"}]},
            '`conversations[0].from` is "bot", expected system, human',
            id="unknown-role",
        ),
        pytest.param(
            {"conversations": ASKED[:1], "system": None},
            "`messages` has 1 elements, expected a request and an answer",
            id="no-answer",
        ),
        pytest.param(
            {"conversations": [*ASKED[:1], {"from": "function_call", "value": "weather()"}]},
            '`conversations[1].value` is the text "weather()", expected JSON',
            id="call-not-json",
        ),
        pytest.param({"tools": "{}{"}, '`tools` is the text "{}{"', id="tools-not-json"),
    ],
)
def test_a_row_that_breaks_the_form_is_refused(changes: dict[str, Json], expected: str):
    assert reason(sharegpt, CALLING | changes).startswith(expected)
