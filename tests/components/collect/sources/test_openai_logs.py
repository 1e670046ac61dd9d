import json

import pytest

from components.collect.source import ParsedRecord, RejectedRecord
from components.collect.sources import openai_logs
from components.schema import Json
from tests.support import logs, openai_completions
from tests.support.openai_completions import REQUEST, completion
from tests.support.source_reading import read, reason, record, records


def test_a_logged_request_with_its_response_is_taken_as_it_is():
    row: dict[str, Json] = {"request": REQUEST, "response": completion(), "conversation_id": "c1"}
    assert openai_logs.claims(row)
    assert record(openai_logs, row) == {
        "timestamp": 1_760_000_000,
        "workload_id": "support",
        "client_id": "shop",
        "request": REQUEST,
        "response": completion(),
        "conversation_id": "c1",
        "user_id": "u-7",
    }


def test_bodies_of_an_http_log_are_found_and_its_own_time_counts():
    row: dict[str, Json] = {
        "timestamp": "2025-10-09T08:53:20Z",
        "request": {"method": "POST", "url": "/v1/chat/completions", "body": REQUEST},
        "response": {"status_code": 200, "request_id": "req_1", "body": completion()},
    }
    assert openai_logs.claims(row)
    interaction = record(openai_logs, row)
    assert interaction["timestamp"] == "2025-10-09T08:53:20Z"
    assert (interaction["request"], interaction["response"]) == (REQUEST, completion())


def test_a_stored_completion_carries_its_request():
    stored = completion(
        temperature=1.0, tools=[logs.WEATHER], tool_choice=None, input_user="u-7",
        metadata={"task": "shoes"}, request_id="req_1",
        messages={
            "object": "list",
            "data": [
                {"id": "chatcmpl-1-0", "role": "user", "content": "Hello", "content_parts": None},
                {
                    "id": "chatcmpl-1-1", "role": "user", "content": None,
                    "content_parts": [{"type": "text", "text": "Look"}],
                },
            ],
        },
    )  # fmt: skip
    assert openai_logs.claims(stored)
    assert record(openai_logs, stored) == {
        "timestamp": 1_760_000_000,
        "workload_id": "support",
        "client_id": "shop",
        "request": {
            "model": "gpt-4o-mini-2024-07-18",
            "tools": [logs.WEATHER],
            "temperature": 1.0,
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "user", "content": [{"type": "text", "text": "Look"}]},
            ],
        },
        "response": completion(),
        "user_id": "u-7",
        "metadata": {"task": "shoes"},
    }


def test_a_page_of_stored_completions_is_cut_into_its_parts():
    good = completion(messages=[{"role": "user", "content": "Hello"}])
    page: dict[str, Json] = {"object": "list", "data": [good, completion(id="chatcmpl-9")]}
    assert openai_logs.claims(page)
    first, second = read(openai_logs, page)
    assert isinstance(first, ParsedRecord)
    assert json.loads(first.row.text) == good
    assert isinstance(second, RejectedRecord)
    assert second.reason == "`messages` is missing, expected an array"
    assert json.loads(second.row.text) == completion(id="chatcmpl-9")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"request": {"messages": 3}, "response": completion()},
            "`request.messages` is a number, expected an array",
            id="messages",
        ),
        pytest.param(
            {"request": {"messages": [{"content": "x"}]}, "response": completion()},
            "`request.messages[0].role` is missing, expected text",
            id="role",
        ),
        pytest.param(
            {"request": {"body": {"messages": ["x"]}}, "response": completion()},
            "`request.body.messages[0]` is text, expected an object",
            id="message-in-a-body",
        ),
        pytest.param(
            {"request": REQUEST, "response": {"error": {"code": "429"}}},
            "`response.error` is an object, expected a response with `choices`",
            id="failed-request",
        ),
        pytest.param(
            {"request": REQUEST, "response": [{"choices": [{"index": "0", "delta": {}}]}]},
            "`response[0].choices[0].index` is text, expected a whole number",
            id="chunk",
        ),
        pytest.param(
            {"request": REQUEST, "response": []},
            "`response[].choices` is missing, expected at least one choice in the chunks of a "
            "stream",
            id="empty-stream",
        ),
        pytest.param(
            {"request": REQUEST, "response": "data: {oops\n"},
            '`response` is the text "{oops", expected JSON as text or as it is',
            id="damaged-stream",
        ),
        pytest.param(
            {"request": REQUEST, "response": "sorry"},
            '`response` is "sorry", expected a response, or the `data:` lines of a stream',
            id="text",
        ),
        pytest.param(
            completion(messages=[{"role": "user", "content": 7}]),
            "`messages[0].content` is a number, expected text, an array of parts or null",
            id="stored",
        ),
    ],
)
def test_a_row_that_has_another_shape_is_refused_with_the_field_and_both_types(
    row: dict[str, Json], expected: str
):
    assert reason(openai_logs, row) == expected


def test_a_five_key_line_belongs_to_another_source():
    assert not openai_logs.claims(logs.interaction())
    assert not openai_logs.claims({"messages": []})


def test_good_rows_among_bad_rows_are_read():
    row: dict[str, Json] = {"request": REQUEST, "response": completion()}
    assert len(records(openai_logs, row, row)) == 2
    assert [type(outcome) for outcome in read(openai_logs, {"request": 1}, row)] == [
        RejectedRecord,
        ParsedRecord,
    ]


PROMPTED: dict[str, Json] = {"model": "gpt-3.5-turbo-instruct", "prompt": "Rome?", "max_tokens": 7}


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_text_completion_is_a_question_and_an_answer(is_streamed: bool):
    whole = openai_completions.text_completion("Sunny.")
    none: dict[str, Json] = {"index": 0, "logprobs": None, "finish_reason": None}
    pieces: Json = [
        openai_completions.text_completion("", choices=[{**none, "text": "Sun"}], usage=None),
        openai_completions.text_completion("ny."),
    ]
    row: dict[str, Json] = {"request": PROMPTED, "response": pieces if is_streamed else whole}
    read = record(openai_logs, row)
    assert read["request"] == {
        "model": "gpt-3.5-turbo-instruct",
        "messages": [{"role": "user", "content": "Rome?"}],
        "max_tokens": 7,
    }
    match read["response"]:
        case {"id": "cmpl-1", "choices": [choice], "usage": {"completion_tokens": 7}}:
            assert isinstance(choice, dict)
            assert choice["message"] == logs.say("Sunny.")
            assert choice["finish_reason"] == "stop"
        case other:
            pytest.fail(f"{other}")


def test_a_text_completion_whose_stream_breaks_off_is_cut():
    none: Json = {"index": 0, "text": "Sun", "logprobs": None, "finish_reason": None}
    piece = openai_completions.text_completion("", choices=[none], usage=None)
    read = record(openai_logs, {"request": PROMPTED, "response": [piece]})
    assert read["finish"] == "upstream_cut"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"prompt": ["Rome?", "Oslo?"]},
            "`request.prompt` is an array, expected text, or an array of one text",
            id="several-prompts",
        ),
        pytest.param(
            {"prompt": [[1, 2]]},
            "`request.prompt` is an array, expected text, or an array of one text",
            id="tokens",
        ),
        pytest.param(
            {"echo": True},
            "`request.echo` is a boolean, expected an answer that follows its prompt",
            id="answer-with-its-prompt",
        ),
        pytest.param(
            {"suffix": "."},
            "`request.suffix` is text, expected an answer that follows its prompt",
            id="answer-within-a-text",
        ),
    ],
)
def test_a_text_completion_that_is_no_answer_to_its_prompt_is_refused(
    changes: dict[str, Json], expected: str
):
    response = openai_completions.text_completion("Sunny.")
    assert reason(openai_logs, {"request": PROMPTED | changes, "response": response}) == expected
