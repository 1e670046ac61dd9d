"""What other OpenAI-compatible servers answer is read as they write it."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from components.schema import Json
from components.serve import chat_request
from components.serve.answer_log import Interaction
from components.serve.chat_answer import AnswerDraft
from components.serve.engines.serving_engine import TokenLogprob, UpstreamError
from components.serve.fallback_servers import FallbackServers
from components.serve.settings import OpenAiFallback, ServeSettings

CALL: dict[str, Json] = {"name": "weather", "arguments": '{"city": "Rome"}'}


def asking(*, is_streamed: bool = False) -> Interaction:
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": is_streamed}
    request = chat_request.read_chat(json.dumps(body).encode())
    return Interaction("app", "support", request, 0.0, None, None)


def asked(*events: dict[str, Any], is_streamed: bool) -> AnswerDraft:
    """Ask a server that answers so."""
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    content = b"".join(lines) if is_streamed else json.dumps(events[0]).encode()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type="application/json")

    async def ask() -> AnswerDraft:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        fallback = OpenAiFallback(url=f"http://127.0.0.1:{port}/v1", model="x")
        servers = FallbackServers(ServeSettings(fallbacks=(fallback,)), {})
        draft = AnswerDraft("chat", "chatcmpl-1", 0)
        async for part in servers.ask(fallback, asking(is_streamed=is_streamed), draft):
            draft.add(part)
        await servers.close()
        await runner.cleanup()
        return draft

    return asyncio.run(ask())


def told(message: dict[str, Any], *, is_streamed: bool, **more: Any) -> AnswerDraft:
    key = "delta" if is_streamed else "message"
    choice = {"index": 0, key: message, "finish_reason": "stop"}
    return asked({"choices": [choice], **more}, is_streamed=is_streamed)


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param({"content": "dry"}, "dry", id="text"),
        pytest.param(
            {"content": [{"type": "text", "text": "dr"}, 7, {"type": "text", "text": "y"}]},
            "dry",
            id="parts",
        ),
        pytest.param({"content": None, "refusal": "I can't."}, "I can't.", id="refusal"),
        pytest.param({"content": 7}, "", id="number"),
    ],
)
def test_no_text_is_lost(message: dict[str, Any], text: str, is_streamed: bool):
    assert "".join(told(message, is_streamed=is_streamed).text) == text


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("count", [-1, 2**64 - 1, True, None, "7"], ids=str)
def test_what_is_no_count_of_tokens_is_unknown(count: Json, is_streamed: bool):
    usage = {"prompt_tokens": 3, "completion_tokens": count}
    draft = told({"content": "dry"}, is_streamed=is_streamed, usage=usage)
    assert (draft.prompt_tokens, draft.completion_tokens) == (3, None)


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("details", [{"cached_tokens": 2}, {}, None, [], {"cached_tokens": -1}])
def test_what_was_cached_of_a_prompt_is_passed_on(details: Json, is_streamed: bool):
    used = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": details}
    usage = told({"content": "dry"}, is_streamed=is_streamed, usage=used).usage()
    known = {"cached_tokens": 2} if details == {"cached_tokens": 2} else None
    assert usage.get("prompt_tokens_details") == known


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
    events = [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    calls = asked(*events, end, is_streamed=True).calls
    assert calls == [{"id": name, "type": "function", "function": CALL} for name in "ab"]


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_a_call_has_an_id_and_its_arguments_as_text_as_clients_expect(is_streamed: bool):
    call = {"id": "", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    (made,) = told({"content": None, "tool_calls": [call]}, is_streamed=is_streamed).calls
    assert isinstance(made, dict)
    assert made.pop("id")
    assert made == {"type": "function", "function": CALL}


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_log_probabilities_are_passed_on(is_streamed: bool):
    entries = [
        {"token": "dry", "logprob": -0.5, "bytes": None, "top_logprobs": [
            {"token": "dry", "logprob": -0.5}, {"token": "wet", "logprob": -1}, 7]},
        {"token": "no number", "logprob": None},
    ]  # fmt: skip
    key = "delta" if is_streamed else "message"
    choice = {key: {"content": "dry"}, "finish_reason": "stop", "logprobs": {"content": entries}}
    draft = asked({"choices": [choice]}, is_streamed=is_streamed)
    assert draft.logprobs == [TokenLogprob("dry", -0.5, (("dry", -0.5), ("wet", -1)))]


def test_a_stream_that_is_cut_is_no_answer_although_each_chunk_has_an_empty_reason():
    chunk = {"choices": [{"delta": {"content": "dr"}, "finish_reason": ""}]}
    with pytest.raises(UpstreamError, match="was cut"):
        asked(chunk, is_streamed=True)


def test_what_is_no_call_is_left_out():
    calls = [7, None, {"id": "a", "type": "function", "function": CALL}]
    draft = told({"content": None, "tool_calls": calls}, is_streamed=False)
    assert draft.calls == calls[2:]


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

    async def ask() -> None:
        servers = FallbackServers(ServeSettings(fallbacks=(fallback,)), {})
        try:
            async for _ in servers.ask(fallback, asking(), AnswerDraft("chat", "chatcmpl-1", 0)):
                pass
        finally:
            await servers.close()

    with pytest.raises(UpstreamError) as failure:
        asyncio.run(ask())
    assert "http://127.0.0.1:9/v1" in failure.value.reason
    assert "sesame" not in failure.value.reason
