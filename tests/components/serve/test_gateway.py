"""A gateway's process in front of a scripted engine, asked by OpenAI's own client and by curl."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from components.chat import chat_templates
from components.receive import client_tokens
from components.serve import plain_template
from tests.support import gateways, logs
from tests.support.gateways import RunningGateway, script
from tests.support.scripted_engine import ANSWER

WEATHER = cast("ChatCompletionToolParam", logs.WEATHER)
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_openais_client_gets_an_answer(gateway: RunningGateway):
    answer = gateway.openai.chat.completions.create(model="support", messages=user("Hi"))
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "support@7"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 16


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_the_header_with_the_requests_id_is_what_feedback_needs(
    gateway: RunningGateway, is_streamed: bool
):
    answer = gateway.ask(stream=is_streamed)
    name = answer.headers["x-request-id"]
    assert f'"id":"{name}"' in answer.text
    vote = {"response_id": name, "kind": "thumb", "value": "up"}
    assert gateway.post("/v1/feedback", json=vote).status_code == 200


def test_an_answer_says_which_version_gave_it(gateway: RunningGateway):
    answer = gateway.ask()
    assert answer.headers["x-flywheel-version"] == "7"
    assert answer.headers["x-flywheel-epoch"] == "3"
    assert answer.headers["x-flywheel-arm"] == "champion"


def test_a_stream_is_the_whole_answer_in_pieces(gateway: RunningGateway):
    chunks = list(
        gateway.openai.chat.completions.create(
            model="support",
            messages=user("Hi"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == ANSWER
    assert len([text for text in texts if text]) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9
    assert {chunk.model for chunk in chunks} == {"support@7"}


@pytest.mark.parametrize(("choice", "offered"), [("auto", [logs.WEATHER]), ("none", [])])
def test_the_model_reads_what_training_rendered(
    gateway: RunningGateway, choice: str, offered: list[dict[str, Any]]
):
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Rain? " + script(echo=True)}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "dry"},
    ]  # fmt: skip
    body = {"model": "support", "messages": messages, "tools": [logs.WEATHER]}
    gateway.post("/v1/chat/completions", json={**body, "tool_choice": choice})
    template = plain_template.as_tokenizer(plain_template.read(gateway.home / "base"))
    rendered = chat_templates.render(template, messages, offered)
    sent = gateway.seen()["requests"][-1]["body"]
    assert sent["prompt"] == rendered.to_text(template)
    assert sent["add_special_tokens"] is False
    assert sent["model"] == "support.v7-abababababab"


def test_the_model_reads_a_refusal_of_another_server(gateway: RunningGateway):
    said = {"role": "assistant", "content": None, "refusal": "I can't do that."}
    messages = [*user("Hi"), said, *user(script(echo=True))]
    body = {"model": "support", "messages": messages}
    gateway.post("/v1/chat/completions", json=body)
    assert "I can't do that." in gateway.seen()["requests"][-1]["body"]["prompt"]


def test_parameters_reach_the_engine(gateway: RunningGateway):
    gateway.ask(
        script(say="x"), temperature=0.7, top_p=0.9, seed=5, stop=["\n"], max_completion_tokens=3
    )
    body = gateway.seen()["requests"][-1]["body"]
    sent = {name: body[name] for name in ("temperature", "top_p", "seed", "stop", "max_tokens")}
    assert sent == {"temperature": 0.7, "top_p": 0.9, "seed": 5, "stop": ["\n"], "max_tokens": 3}


def test_a_nucleus_of_nothing_is_the_most_probable_token(gateway: RunningGateway):
    gateway.ask(script(say="x"), temperature=0.7, top_p=0)
    body = gateway.seen()["requests"][-1]["body"]
    assert (body["temperature"], body["top_p"]) == (0.0, 1.0)  # engines refuse a `top_p` of 0


def test_without_parameters_the_answer_is_greedy_and_as_long_as_evaluated(gateway: RunningGateway):
    gateway.ask(script(say="x"))
    body = gateway.seen()["requests"][-1]["body"]
    assert (body["temperature"], body["max_tokens"]) == (0.0, 64)


def test_a_call_becomes_a_tool_call(gateway: RunningGateway):
    answer = gateway.openai.chat.completions.create(
        model="support", messages=user(script(say=f"I look.\n{CALL}")), tools=[WEATHER]
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


def test_a_streamed_call_comes_whole(gateway: RunningGateway):
    with gateway.openai.chat.completions.stream(
        model="support", messages=user(script(say=f"{CALL}\n{CALL}")), tools=[WEATHER]
    ) as stream:
        deltas = [event.chunk.choices[0].delta for event in stream if event.type == "chunk"]
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["weather", "weather"]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or []]
    assert [piece.index for piece in pieces] == [0, 1]
    for piece in pieces:
        assert piece.function is not None
        assert json.loads(piece.function.arguments or "") == {"city": "Oslo"}


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_an_answer_cut_by_its_length_calls_nothing_that_it_did_not_finish(
    gateway: RunningGateway, is_streamed: bool
):
    half = '{"name": "plan", "arguments": {"next": {"name": "delete_all", "arguments": {}}'
    answer = gateway.ask(
        script(say=half, finish="length"), tools=[logs.WEATHER], stream=is_streamed
    )
    assert "tool_calls" not in answer.text
    assert r"\"delete_all\"" in answer.text
    assert '"finish_reason":"length"' in answer.text


def test_a_surrogate_in_a_calls_arguments_is_passed_on_as_an_escape(gateway: RunningGateway):
    call = CALL.replace("Oslo", r"\ud83d")
    for is_streamed in (True, False):
        answer = gateway.ask(script(say=call), tools=[logs.WEATHER], stream=is_streamed)
        assert answer.status_code == 200
        assert r"\\ud83d" in answer.text


def test_json_is_text_where_no_tool_is_offered(gateway: RunningGateway):
    message = gateway.ask(script(say=CALL)).json()["choices"][0]["message"]
    assert message["content"] == CALL
    assert "tool_calls" not in message


def test_only_one_call_comes_where_one_is_allowed(gateway: RunningGateway):
    answer = gateway.ask(
        script(say=f"{CALL}\n{CALL}"), tools=[logs.WEATHER], parallel_tool_calls=False
    )
    assert len(answer.json()["choices"][0]["message"]["tool_calls"]) == 1


@pytest.mark.parametrize("most", [None, 1, 2])
def test_logprobs_have_openais_form(gateway: RunningGateway, most: int | None):
    answer = gateway.openai.chat.completions.create(
        model="support",
        messages=user(script(say="a b")),
        logprobs=True,
        top_logprobs=most,
        stream=True,
    )
    tokens = [
        token
        for chunk in answer
        for choice in chunk.choices
        if choice.logprobs is not None
        for token in choice.logprobs.content or []
    ]
    assert [token.token for token in tokens] == ["a ", "b"]
    likely = [("x", -0.25), ("a ", -0.5)][: most or 0]
    assert [(top.token, top.logprob) for top in tokens[0].top_logprobs] == likely


def test_completions_send_the_prompt_as_it_is(gateway: RunningGateway):
    answer = gateway.openai.completions.create(model="support", prompt="Once " + script(echo=True))
    assert answer.choices[0].text == "Once " + script(echo=True)
    stream = gateway.openai.completions.create(model="support", prompt="Once", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == ANSWER


def test_the_offsets_of_a_streamed_completion_count_from_its_start(gateway: RunningGateway):
    chunks = gateway.openai.completions.create(
        model="support", prompt=script(say="one two three"), logprobs=1, stream=True
    )
    logprobs = [chunk.choices[0].logprobs for chunk in chunks]
    assert [each.text_offset for each in logprobs if each is not None] == [[0], [4], [8]]


def test_workloads_are_listed_as_models(gateway: RunningGateway):
    assert [model.id for model in gateway.openai.models.list()] == ["support"]
    assert gateway.openai.models.retrieve("support").owned_by == "flywheel"


def test_an_unknown_workload_is_no_model(gateway: RunningGateway):
    for model in ("gpt-4o", "base", "support.v7-abababababab", "support@6"):
        with pytest.raises(openai.NotFoundError, match="served: support") as raised:
            gateway.openai.chat.completions.create(model=model, messages=user("Hi"))
        assert raised.value.code == "model_not_found"


def test_curl_works(gateway: RunningGateway):
    body = json.dumps({"model": "support", "messages": [{"role": "user", "content": "Hi"}]})
    command = ["curl", "-sS", f"{gateway.url}/v1/chat/completions", "-d", body]
    command += [
        "-H",
        f"authorization: Bearer {gateway.token}",
        "-H",
        "content-type: application/json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == ANSWER


def test_the_trace_travels_on(gateway: RunningGateway):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"model": "support", "messages": user(script(say="x"))}
    gateway.post("/v1/chat/completions", json=body, headers={"traceparent": trace})
    assert gateway.seen()["requests"][-1]["headers"]["traceparent"] == trace


def test_the_routes_say_who_serves(gateway: RunningGateway):
    routes = gateway.get("/v1/routes").json()["routes"]
    assert routes["support"]["champion"]["version"] == "7"
    assert routes["support"]["champion"]["proved_at"] == "2026-11-27T08:00:00+00:00"


def test_the_status_has_a_clients_own_workloads_and_no_engines_address(gateway: RunningGateway):
    tokens = gateway.home / "tokens.json"
    token = client_tokens.add_token(tokens, "desk", now=datetime.now(UTC), workloads=["support"])
    answer = httpx.get(f"{gateway.url}/v1/routes", headers={"authorization": f"Bearer {token}"})
    status = answer.json()["status"]
    assert status["replicas"] == [{"name": "one", "condition": "out"}]
    assert status["refused"] == [{"workload": "support", "version": "9"}]
    assert status["workloads"]["support"]["champion"]["proofs"] == {"one": {"from_base": 0.5}}
    assert "payroll" not in answer.text
    assert "10.0.0.7" not in answer.text + gateway.get("/v1/routes").text


def test_the_process_loads_no_heavy_library(tmp_path: Path):
    with gateways.running(tmp_path, is_forked=False) as gateway:
        gateway.ask()
        loaded = gateway.get("/v1/routes").json()["status"]["modules"]
    assert {"torch", "transformers", "mlflow", "duckdb", "pyarrow"}.isdisjoint(loaded)


def test_the_metrics_count_answers_by_version(gateway: RunningGateway):
    gateway.ask()
    gateway.ask(model="nobody")
    page = gateway.get("/metrics").text
    assert 'flywheel_serve_requests_total{arm="champion",status="200",version="7"' in page
    assert 'flywheel_serve_requests_total{arm="",status="404",version="",workload=""}' in page
    assert 'flywheel_serve_proved_replicas{version="7",workload="support"} 1.0' in page
    assert "flywheel_serve_can_log 1.0" in page
    assert "flywheel_receive_commit_seconds" in page


def test_a_gateway_is_ready_when_a_replica_is(gateway: RunningGateway, tmp_path: Path):
    assert gateway.get("/readyz").status_code == 200
    with gateways.running(tmp_path, champion={"replicas": ()}) as idle:
        assert idle.get("/healthz").status_code == 200
        assert idle.get("/readyz").status_code == 503
        answer = idle.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        unproved = 'flywheel_serve_proved_replicas{version="7",workload="support"} 0.0'
        assert unproved in idle.get("/metrics").text
