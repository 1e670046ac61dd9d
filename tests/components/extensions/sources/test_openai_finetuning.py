import pytest

from components.collect.source import ParsedRecord
from components.extensions.sources import openai_finetuning
from components.schema import Json
from tests.support import logs
from tests.support.source_reading import read, reason, record

QUESTION: dict[str, Json] = {"role": "user", "content": "What is the weather in Rome?"}
SYSTEM: dict[str, Json] = {"role": "system", "content": "Be brief."}


def test_a_row_of_messages_is_an_interaction_answered_by_its_last_message():
    answer = logs.call("weather", '{"city": "Rome"}')
    row: dict[str, Json] = {
        "messages": [SYSTEM, QUESTION, answer | {"weight": 1}],
        "tools": [logs.WEATHER],
        "parallel_tool_calls": False,
    }
    assert openai_finetuning.claims(row)
    interaction = record(openai_finetuning, row)
    response = interaction.pop("response")
    assert interaction == {
        "timestamp": 0,
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "messages": [SYSTEM, QUESTION],
            "tools": [logs.WEATHER],
            "parallel_tool_calls": False,
        },
    }
    assert isinstance(response, dict)
    assert str(response.pop("id")).startswith("ft-")
    assert response == {"choices": [{"index": 0, "message": answer, "finish_reason": "tool_calls"}]}


def test_a_preference_row_is_an_interaction_and_a_choice_about_it():
    row: dict[str, Json] = {
        "input": {"messages": [QUESTION], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [logs.say("Sunny.")],
        "non_preferred_output": [logs.say("No idea.")],
    }
    assert openai_finetuning.claims(row)
    interaction, choice = read(openai_finetuning, row)
    assert isinstance(interaction, ParsedRecord)
    assert isinstance(choice, ParsedRecord)
    assert (interaction.kind, choice.kind) == ("interactions", "feedback")
    response = interaction.record["response"]
    assert isinstance(response, dict)
    assert interaction.record["request"] == row["input"]
    assert response["choices"] == [
        {"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}
    ]
    assert choice.record == {
        "timestamp": 0,
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "annotator",
        "kind": "choice",
        "value": {"chosen": logs.say("Sunny."), "rejected": logs.say("No idea.")},
        "response_id": response["id"],
    }


def test_the_same_row_has_the_same_id_and_another_row_another():
    row: dict[str, Json] = {"messages": [QUESTION, logs.say("Sunny.")]}
    swapped = dict(reversed(row.items()))
    other: dict[str, Json] = {"messages": [QUESTION, logs.say("Rain.")]}
    assert record(openai_finetuning, row) == record(openai_finetuning, swapped)
    assert (
        record(openai_finetuning, row)["response"] != record(openai_finetuning, other)["response"]
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param({"messages": "hi"}, "`messages` is text, expected an array", id="text"),
        pytest.param(
            {"messages": [QUESTION, QUESTION]},
            '`messages[1].role` is "user", expected the assistant\'s answer at the end',
            id="unanswered",
        ),
        pytest.param(
            {"messages": [logs.say("Hi")]},
            "`messages` has 1 elements, expected a request and an answer",
            id="no-request",
        ),
        pytest.param(
            {"messages": [QUESTION, {"role": "assistant", "content": {"a": 1}}]},
            "`messages[1].content` is an object, expected text, an array of parts or null",
            id="content",
        ),
        pytest.param(
            {"messages": [QUESTION, {"role": "assistant", "tool_calls": [{"function": "x"}]}]},
            "`messages[1].tool_calls[0].function` is text, expected an object",
            id="call",
        ),
        pytest.param(
            {"input": [], "preferred_output": [], "non_preferred_output": []},
            "`input` is an array, expected an object",
            id="input",
        ),
        pytest.param(
            {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []},
            "`preferred_output` has 0 elements, expected one message",
            id="no-output",
        ),
        pytest.param(
            {"input": {"messages": []}, "preferred_output": [QUESTION], "non_preferred_output": []},
            '`preferred_output[0].role` is "user", expected assistant',
            id="role",
        ),
    ],
)  # fmt: skip
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(openai_finetuning, row) == expected


def test_rows_with_further_keys_or_without_an_answer_belong_to_another_source():
    answered: list[Json] = [QUESTION, logs.say("Sunny.")]
    assert not openai_finetuning.claims({"messages": answered, "split": "TRAIN"})
    assert not openai_finetuning.claims({"messages": [QUESTION]})
    assert not openai_finetuning.claims(logs.interaction())
