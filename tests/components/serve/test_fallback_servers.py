"""The copy of what other OpenAI-compatible servers answer has what they wrote."""

import asyncio
import json
from typing import Any

import pytest

from components.schema import Json
from components.serve import chat_request
from components.serve.answer_log import Interaction
from components.serve.chat_answer import AnswerDraft
from components.serve.engines.serving_engine import UpstreamError
from components.serve.fallback_servers import FallbackServers
from components.serve.relayed_answer import RelayedAnswer
from components.serve.settings import OpenAiFallback, ServeSettings

CALL: dict[str, Json] = {"name": "weather", "arguments": '{"city": "Rome"}'}


def relayed(*events: dict[str, Any]) -> RelayedAnswer:
    """Read a stream of these events."""
    answer = RelayedAnswer(
        "ours", "gpt-x", "support@", drops_usage=True, media_type=b"text/event-stream", headers=[]
    )
    for event in events:
        answer.event(b"data: " + json.dumps(event).encode() + b"\n\n")
    return answer


def message(answer: RelayedAnswer) -> dict[str, Any]:
    choice: dict[str, Any] = json.loads(answer.whole(None))["choices"][0]
    return choice["message"]


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        pytest.param({"content": "dry"}, "dry", id="text"),
        pytest.param(
            {"content": [{"type": "text", "text": "dr"}, 7, {"type": "text", "text": "y"}]},
            "dry",
            id="parts",
        ),
        pytest.param({"content": None, "refusal": "I can't."}, None, id="refusal"),
    ],
)
def test_no_text_is_lost(delta: dict[str, Any], text: str | None):
    said = message(relayed(chunk({"role": "assistant"}), chunk({**delta, "role": "assistant"})))
    assert (said["role"], said["content"]) == ("assistant", text)
    assert said.get("refusal") == delta.get("refusal")


@pytest.mark.parametrize("count", [-1, 2**64 - 1, True, None, "7"], ids=str)
def test_what_is_no_count_of_tokens_is_unknown(count: Json):
    usage = {"prompt_tokens": 3, "completion_tokens": count}
    assert relayed({"choices": [], "usage": usage}).tokens() == (3, None)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([{"id": "a", "function": CALL}, {"id": "b", "function": CALL}], id="whole"),
        pytest.param(
            [
                {"id": "a", "function": {"name": "weather"}},
                {"function": {"arguments": CALL["arguments"]}},
                {"id": "b", "function": {"name": "weather", "arguments": '{"city": '}},
                {"id": "b", "function": {"arguments": '"Rome"}'}},
            ],
            id="in-pieces",
        ),
        pytest.param(
            [{"index": 0, "id": name, "function": CALL} for name in "ab"], id="all-of-one-number"
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "weather"}},
                {"index": 0, "id": "x", "function": {"arguments": CALL["arguments"]}},
                {"index": 0, "id": "b", "function": {"name": "weather"}},
                {"index": 0, "function": {"arguments": {"city": "Rome"}}},
            ],
            id="other-ids-and-an-object",
        ),
    ],
)
def test_calls_that_a_stream_does_not_number_are_kept_apart(pieces: list[dict[str, Any]]):
    calls = message(relayed(*(chunk({"tool_calls": [piece]}) for piece in pieces)))["tool_calls"]
    assert [(call["id"], call["function"]) for call in calls] == [("a", CALL), ("b", CALL)]


def test_choices_and_their_log_probabilities_are_kept_apart():
    entries = [{"token": "dry", "logprob": -0.5}]
    events = [
        {
            "choices": [
                {"index": index, "delta": {"content": text}, "logprobs": {"content": entries}}
            ]
        }
        for index, text in [(1, "w"), (0, "dr"), (0, "y"), (1, "et")]
    ]
    choices = json.loads(relayed(*events).whole(None))["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["dry", "wet"]
    assert choices[0]["logprobs"] == {"content": entries * 2}


def test_what_follows_the_end_waits_for_the_record():
    answer = relayed(chunk({"content": "dry"}))
    assert not answer.is_ended
    assert answer.event(b"data: " + json.dumps(chunk({}, "stop")).encode() + b"\n\n") == b""
    assert answer.event(b"data: [DONE]\n\n") == b""
    assert answer.last(AnswerDraft("chat", "ours", 0)).endswith(b"data: [DONE]\n\n")


def test_a_stream_that_is_cut_is_no_answer_although_each_chunk_has_an_empty_reason():
    assert not relayed(chunk({"content": "dr"}, "")).is_ended


@pytest.mark.parametrize(("environment", "is_named"), [({}, True), ({"TEACHER_KEY": "k"}, False)])
def test_a_key_that_is_not_set_is_named_in_the_log(
    environment: dict[str, str], is_named: bool, logged: list[str]
) -> None:
    fallback = OpenAiFallback(url="https://x.test/v1", model="x", api_key_env="TEACHER_KEY")
    FallbackServers(ServeSettings(fallbacks=(fallback,)), environment)
    said = "TEACHER_KEY is not set, so https://x.test/v1 is asked without a key"
    assert (said in logged) == is_named


def test_a_login_in_a_servers_address_is_in_no_reason_of_a_failure() -> None:
    fallback = OpenAiFallback(url="http://team:sesame@127.0.0.1:9/v1", model="x")
    request = chat_request.read_chat(b'{"messages": [{"role": "user", "content": "Hi"}]}')
    interaction = Interaction("app", "support", request, 0.0, None, None)

    async def ask() -> None:
        servers = FallbackServers(ServeSettings(fallbacks=(fallback,)), {})
        draft = AnswerDraft("chat", "chatcmpl-1", 0)
        try:
            async for _ in servers.ask(fallback, interaction, draft, lambda _: None):
                pass
        finally:
            await servers.close()

    with pytest.raises(UpstreamError) as failure:
        asyncio.run(ask())
    assert "http://127.0.0.1:9/v1" in failure.value.reason
    assert "sesame" not in failure.value.reason
