"""While production's server answers, an application sees through the gateway what it saw before."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.support import fake_production, forking, gateways, logs
from tests.support.gateways import RunningGateway, script

TIME = re.compile(rb'\{"kind":"interactions","client_id":"app","body":\{"timestamp":([0-9.]+),')
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PICTURE = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]
CUSTOM = {"type": "custom", "custom": {"name": "sql"}}
TOOLS = [
    {"type": "function", "function": {"name": f"tool_{n}", "parameters": {}}} for n in range(140)
]
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {
        "mode": "auto",
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    },
}
FUNCTION = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": None, "function_call": fake_production.CALL},
    {"role": "function", "name": "weather", "content": "dry"},
]

VARIATIONS = [
    pytest.param({"top_k": 5}, id="top_k"),
    pytest.param({"chat_template_kwargs": {"enable_thinking": False}}, id="template"),
    pytest.param({"presence_penalty": 0.5, "frequency_penalty": 0.5}, id="penalties"),
    pytest.param({"n": 3}, id="n"),
    pytest.param({"logit_bias": {"7": 5}}, id="logit_bias"),
    pytest.param({"reasoning_effort": "high"}, id="reasoning_effort"),
    pytest.param({"reasoning": {"effort": "high"}}, id="reasoning"),
    pytest.param({"verbosity": "low"}, id="verbosity"),
    pytest.param({"messages": PICTURE}, id="image"),
    pytest.param({"tools": [CUSTOM]}, id="custom-tool"),
    pytest.param({"tools": [logs.WEATHER], "tool_choice": ALLOWED}, id="allowed_tools"),
    pytest.param({"tools": TOOLS}, id="140-tools"),
    pytest.param({"prediction": {"type": "content", "content": "dry"}}, id="prediction"),
    pytest.param({"web_search_options": {}}, id="web_search"),
    pytest.param({"messages": FUNCTION}, id="function-role"),
    pytest.param({"tool_choice": "auto"}, id="choice-without-tools"),
    pytest.param({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, id="5-MB"),
]
FOR_CHAMPIONS = [
    pytest.param({"max_completion_tokens": 16_000}, id="16,000-tokens"),
    pytest.param({"store": True, "metadata": {"task": "a"}}, id="metadata"),
    pytest.param({"stream_options": {"include_usage": True}, "stream": True}, id="usage"),
    pytest.param({}, id="plain"),
    pytest.param({"tools": [logs.WEATHER]}, id="call"),
]


@pytest.fixture(scope="module")
def production() -> Iterator[str]:
    with forking.server(True, fake_production.serve) as (_, url):
        yield url


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, production: str) -> Iterator[RunningGateway]:
    server = {"url": f"{production}/v1", "model": "gpt-x"}
    settings = {
        "workloads": {"fresh": {"fallbacks": [server]}, "support": {"fallbacks": [server]}},
        "limits": {"max_tokens": 64, "relayed_bytes": 6_000_000},
    }
    with gateways.running(tmp_path_factory.mktemp("relayed"), settings) as running:
        yield running


def seen(production: str) -> dict[str, Any]:
    content: dict[str, Any] = httpx.get(f"{production}/requests").json()
    return content


def told(client: OpenAI, model: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask with OpenAI's client; return what it reads, without the ids of answers."""
    body = {"messages": [{"role": "user", "content": "Rain?"}], **request}
    known = {key: body.pop(key) for key in ("messages", "stream") if key in body}
    create: Any = client.chat.completions.create
    said = create(model=model, extra_body=body, **known)
    answers = [*said] if known.get("stream") else [said]
    return [{**answer.model_dump(exclude_unset=True), "id": ""} for answer in answers]


def last_record(gateway: RunningGateway) -> dict[str, Any]:
    """Read the newest record while the gateway runs: its answer was seen, so it is on disk."""
    lines = b"".join(path.read_bytes() for path in (gateway.home / "spool").iterdir()).splitlines()
    found = ((TIME.match(line), line) for line in lines)
    newest = max((float(time[1]), line) for time, line in found if time is not None)
    record: dict[str, Any] = json.loads(newest[1])["body"]
    return record


@pytest.mark.parametrize(
    ("workload", "is_streamed"),
    [
        pytest.param("fresh", False, id="whole"),
        pytest.param("fresh", True, id="streamed"),
        pytest.param("support", False, id="champion"),
    ],
)
@pytest.mark.parametrize("request_", VARIATIONS + FOR_CHAMPIONS)
def test_a_request_is_answered_as_without_the_gateway(
    gateway: RunningGateway,
    production: str,
    request_: dict[str, Any],
    workload: str,
    is_streamed: bool,
):
    if workload == "support" and request_ in [each.values[0] for each in FOR_CHAMPIONS]:
        pytest.skip("the champion answers")
    body = {**request_, "stream": True} if is_streamed else request_
    direct = OpenAI(base_url=f"{production}/v1", api_key="x", max_retries=0)
    expected = told(direct, "gpt-x", body)
    assert told(gateway.openai, workload, body) == expected
    first, second = seen(production)["requests"][-2:]
    sent = dict(second["body"])
    if body.get("stream") and "stream_options" not in body:
        assert sent.pop("stream_options") == {"include_usage": True}
    assert sent == first["body"]
    record = last_record(gateway)
    assert record["request"] == first["body"] | {"model": workload}
    assert record["response"]["usage"] == fake_production.USAGE
    assert len(record["response"]["choices"]) == request_.get("n", 1)
    assert record["response"]["choices"][0]["finish_reason"] is not None
    assert (record["served"]["arm"], record["finish"]) == ("fallback", "tool_calls"
        if request_.get("tools") else "stop")  # fmt: skip


@pytest.mark.parametrize("request_", [{"n": 3}, {"messages": PICTURE}, {"top_k": 5}], ids=str)
def test_without_another_server_a_version_says_what_to_leave_out(
    tmp_path: Path, request_: dict[str, Any]
):
    with gateways.running(tmp_path) as alone, pytest.raises(openai.BadRequestError):
        told(alone.openai, "support", request_)


def test_the_first_piece_comes_when_production_sends_it(gateway: RunningGateway):
    for offered in ([], [logs.WEATHER]):
        began = time.monotonic()
        stream = gateway.openai.chat.completions.create(
            model="fresh",
            messages=[{"role": "user", "content": script(delay=0.1)}],
            stream=True,
            extra_body={"tools": offered},
        )
        next(stream)
        first = time.monotonic() - began
        assert len([*stream]) >= 3
        assert first < (time.monotonic() - began) / 3


def test_the_record_of_a_stream_is_the_whole_answer(gateway: RunningGateway):
    told(gateway.openai, "fresh", {"tools": [logs.WEATHER], "stream": True})
    (choice,) = last_record(gateway)["response"]["choices"]
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": fake_production.CALL}
    ]
    told(gateway.openai, "fresh", {"stream": True})
    response = last_record(gateway)["response"]
    assert response["object"] == "chat.completion"
    message = {"role": "assistant", "content": "dry dry dry ", "reasoning_content": "Hm."}
    assert response["choices"][0]["message"] == message


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_feedback_needs_the_id_that_the_client_saw(gateway: RunningGateway, is_streamed: bool):
    answer = gateway.ask(model="fresh", stream=is_streamed)
    line = answer.text.partition("\n")[0].removeprefix("data: ") if is_streamed else answer.text
    answer_id = json.loads(line)["id"]
    vote = {"response_id": answer_id, "kind": "thumb", "value": "up"}
    assert gateway.post("/v1/feedback", json=vote).json()["workload"] == "fresh"
    assert last_record(gateway)["response"]["id"] == answer_id
    assert "theirs" not in answer.text
    assert answer.headers["x-request-id"] == answer_id


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("parts", "status"),
    [
        pytest.param({"status": 429, "headers": {"retry-after": "17"}}, 429, id="busy"),
        pytest.param({"status": 400}, 400, id="refused"),
        pytest.param({"status": 404}, 404, id="unknown"),
        pytest.param({"status": 529}, 529, id="overloaded"),
        pytest.param({"status": 500, "say": "<html>", "media": "text/html"}, 500, id="html"),
        pytest.param({"say": fake_production.ERROR}, 200, id="error-with-200"),
        pytest.param({"say": "garbage", "media": "text/plain"}, 200, id="garbage"),
        pytest.param({"say": {"choices": []}}, 200, id="no-choice"),
    ],
)
def test_an_error_of_productions_is_passed_on_as_it_is_and_not_logged(
    gateway: RunningGateway,
    production: str,
    parts: dict[str, Any],
    status: int,
    is_streamed: bool,
):
    before = gateway.ask(model="fresh").json()["id"]
    content = script(**parts)
    request = {"messages": [{"role": "user", "content": content}], "stream": is_streamed}
    direct = httpx.post(f"{production}/v1/chat/completions", json={**request, "model": "gpt-x"})
    answer = gateway.ask(content, model="fresh", stream=is_streamed)
    assert (answer.status_code, answer.content) == (status, direct.content)
    for header in ("content-type", "retry-after"):
        assert answer.headers.get(header) == direct.headers.get(header)
    assert answer.headers["x-flywheel-arm"] == "fallback"
    assert last_record(gateway)["response"]["id"] == before


@pytest.mark.parametrize("fault", ["drop", "cut", "fail"])
def test_a_stream_that_breaks_off_is_an_error_and_a_record_that_never_counts(
    gateway: RunningGateway, fault: str
):
    with pytest.raises(openai.APIError):
        told(gateway.openai, "fresh", {
            "messages": [{"role": "user", "content": script(**{fault: 2})}], "stream": True,
        })  # fmt: skip
    time.sleep(0.1)
    record = last_record(gateway)
    assert record["finish"] == "upstream_cut"
    (choice,) = record["response"]["choices"]
    assert choice["finish_reason"] == "upstream_cut"
    assert choice["message"]["content"] == "dry "


def test_compressed_and_large_answers_are_read(gateway: RunningGateway):
    large = {"messages": [{"role": "user", "content": script(gzip=True, pad=3_000_000)}]}
    for is_streamed in (False, True):
        said = told(gateway.openai, "fresh", {**large, "stream": is_streamed})
        assert len(json.dumps(said)) > 3_000_000
        choice = last_record(gateway)["response"]["choices"][0]
        assert choice["message"]["content"] == "x" * 3_000_000


def test_an_event_of_10_mb_ends_the_stream_with_an_error(gateway: RunningGateway):
    huge = {"messages": [{"role": "user", "content": script(pad=10_000_000)}], "stream": True}
    with pytest.raises(openai.APIError):
        told(gateway.openai, "fresh", huge)


def test_a_body_larger_than_the_limit_is_413(gateway: RunningGateway):
    assert gateway.ask("x" * 6_000_000, model="fresh").status_code == 413


def test_a_client_that_leaves_cancels_production(gateway: RunningGateway, production: str):
    before = seen(production)["cancelled"]
    with gateway.openai.chat.completions.create(
        model="fresh",
        messages=[{"role": "user", "content": script(delay=0.1, pieces=100)}],
        stream=True,
    ) as stream:
        for _ in range(3):
            next(stream)
    deadline = time.monotonic() + 5
    while seen(production)["cancelled"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    record = last_record(gateway)
    assert record["finish"] == "client_gone"
    assert record["response"]["choices"][0]["message"]["content"].startswith("dry dry")


def test_no_secret_goes_on_and_none_is_logged(gateway: RunningGateway, production: str):
    headers = {"x-api-key": "sesame", "cookie": "sesame", "openai-organization": "sesame"}
    request = {"model": "fresh", "messages": [{"role": "user", "content": "Hi"}]}
    answer = gateway.post("/v1/chat/completions", json=request, headers=headers)
    sent = seen(production)["requests"][-1]["headers"]
    assert "authorization" not in {name.lower() for name in sent}
    assert "sesame" not in json.dumps([sent, last_record(gateway)])
    assert gateway.token not in json.dumps([sent, last_record(gateway)])
    assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_gateways_own_key_is_not_shown(gateway: RunningGateway, status: int):
    said = {"error": {"message": "Incorrect API key provided: sk-abc***xyz"}}
    answer = gateway.ask(script(status=status, say=said), model="fresh")
    assert answer.status_code == 502
    assert "sk-abc" not in answer.text


def test_a_name_of_the_model_that_a_request_hides_goes_to_the_server_of_the_settings(
    gateway: RunningGateway, production: str
):
    body = '{"model": "x", "\\u006dodel": "fresh", "top_k": 1, "messages": [], "model": "fresh"}'
    assert gateway.post("/v1/chat/completions", content=body).status_code == 200
    assert seen(production)["requests"][-1]["body"]["model"] == "gpt-x"


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_responses_and_completions_go_to_the_same_paths(
    gateway: RunningGateway, production: str, is_streamed: bool
):
    client = gateway.openai
    made: Any = client.responses.create(
        model="fresh", input=[{"role": "user", "content": [{"type": "input_image", "image_url": "x",
        "detail": "auto"}]}], reasoning={"effort": "high"}, stream=is_streamed,
    )  # fmt: skip
    said = [*made][-1].response if is_streamed else made
    assert (said.output_text, said.model) == ("It is dry.", "gpt-x-2026")
    record = last_record(gateway)
    assert record["request"]["input"][0]["role"] == "user"
    assert (record["response"]["id"], record["finish"]) == (said.id, "stop")
    assert record["response"]["output"][0]["content"][0]["text"] == "It is dry."
    asked = client.completions.create(model="fresh", prompt="Hi", stream=is_streamed)
    texts = [*asked] if is_streamed else [asked]
    assert "dry" in "".join(text.choices[0].text for text in texts)  # type: ignore[union-attr]
    record = last_record(gateway)
    assert record["request"]["messages"] == []
    assert "dry" in record["response"]["choices"][0]["text"]
    paths = [each["path"] for each in seen(production)["requests"][-2:]]
    assert paths == ["/v1/responses", "/v1/completions"]
    assert client.responses.with_raw_response is not None
    with pytest.raises(openai.BadRequestError, match="whole conversation"):
        client.responses.create(model="fresh", input="And?", previous_response_id=said.id)
