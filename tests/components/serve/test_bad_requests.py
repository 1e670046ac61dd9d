"""Bad requests are answered in OpenAI's form, with what would be right; others go on as before."""

import gzip
import json
import re
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import openai
import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from components.receive import client_tokens
from components.receive.client_tokens import Quota
from tests.support import gateways, logs, receivers
from tests.support.gateways import RunningGateway, script

OK: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def chat(**changes: Any) -> dict[str, Any]:
    """Return a body that is fine but for the changes."""
    return {"model": "support", "messages": OK, **changes}


def one(message: dict[str, Any]) -> dict[str, Any]:
    return chat(messages=[message])


def with_tool(**function: Any) -> dict[str, Any]:
    return chat(tools=[{"type": "function", "function": {"name": "f", **function}}])


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


BODIES: dict[str, tuple[Any, str]] = {
    "empty": ("", "not JSON"),
    "truncated": ('{"model": "support", "messages": [', "not JSON"),
    "array": ([], "an array, expected a JSON object"),
    "text": ('"x"', "expected a JSON object"),
    "nan": ('{"model": "support", "messages": [], "temperature": NaN}', "not JSON"),
    "surrogate-in-a-call": (
        one({"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": r'{"a": "\ud83d"}'}}]}),
        "'messages[0].tool_calls[0].function.arguments'",
    ),
    "surrogate": (r'{"messages": [{"role": "user", "content": "\ud800"}]}', "not JSON"),
    "latin-1": ('{"model": "ä"}'.encode("latin-1"), "not JSON"),
    "two-values": ("{}{}", "not JSON"),
    "deep": ('{"model":' * 5000 + "1" + "}" * 5000, "not JSON"),
    "rather-deep": (chat(metadata=nested(300)), "nested more than 200"),
    "no-messages": ({"model": "support"}, "'messages': it is missing"),
    "empty-messages": (chat(messages=[]), "at least 1 item"),
    "messages-text": (chat(messages="Hi"), "expected an array"),
    "many-messages": (chat(messages=OK * 2049), "at most 2048"),
    "many-parts": (with_tool(parameters={"enum": [[]] * 60_000}), "more than 50000 objects"),
    "many-parts-in-arguments": (
        one({"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a": [' + "[], " * 60_000 + "1]}"}}]}),
        "more than 50000 objects",
    ),
    "many-parts-that-are-not-json": (
        one({"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a": [NaN, ' + "[], " * 60_000 + "1]}"}}]}),
        "arguments of a call are not JSON",
    ),
    "message-text": (chat(messages=["Hi"]), "'messages[0]'"),
    "no-model": ({"messages": OK}, "`model` is missing"),
    "model-number": (chat(model=7), "'model'"),
    "unknown-role": (one({"role": "robot", "content": "x"}), "expected one of system"),
    "function-role": (one({"role": "function", "name": "f", "content": "x"}), "expected one of"),
    "no-content": (one({"role": "user"}), "'messages[0].content'"),
    "content-number": (one({"role": "user", "content": 5}), "expected text or an array"),
    "image": (
        one({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        "is \"image_url\", expected 'text'",
    ),
    "refusal-of-a-user": (
        one({"role": "user", "content": [{"type": "refusal", "refusal": "No."}]}),
        "is \"refusal\", expected 'text'",
    ),
    "part-without-text": (one({"role": "user", "content": [{"type": "text"}]}), "content[0]"),
    "tool-without-id": (one({"role": "tool", "content": "x"}), "tool_call_id"),
    "empty-assistant": (one({"role": "assistant"}), "no `tool_calls`"),
    "calls-not-json": (
        one({"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}]}),
        "not the JSON text of an object",
    ),
    "calls-of-nothing": (one({"role": "assistant", "tool_calls": [{}]}), "tool_calls[0]"),
    "n": (chat(n=2), "leave it out"),
    "n-true": (chat(n=True), "leave it out"),
    "unknown-field": (chat(top_k=5), "Unknown parameter: 'top_k'"),
    "penalty": (chat(frequency_penalty=0.5), "leave it out"),
    "functions": (chat(functions=[{"name": "f"}]), "leave it out"),
    "audio": (chat(modalities=["text", "audio"]), "leave it out"),
    "temperature-text": (chat(temperature="hot"), "a valid number"),
    "temperature-high": (chat(temperature=2.1), "less than or equal to 2"),
    "temperature-true": (chat(temperature=True), "a valid number"),
    "top-p": (chat(top_p=-0.1), "greater than or equal to 0"),
    "max-tokens-zero": (chat(max_tokens=0), "greater than or equal to 1"),
    "max-tokens-float": (chat(max_completion_tokens=1.5), "a valid integer"),
    "seed": (chat(seed="x"), "a valid integer"),
    "seed-huge": (chat(seed=2**63), "less than or equal to 9223372036854775807"),
    "stop-number": (chat(stop=5), "text or an array"),
    "stop-five": (chat(stop=["a"] * 5), "at most 4 items"),
    "stop-empty": (chat(stop=[""]), "at least 1 character"),
    "stream-text": (chat(stream="yes"), "a valid boolean"),
    "options-without-stream": (chat(stream_options={"include_usage": True}), "`stream` is true"),
    "top-logprobs-alone": (chat(top_logprobs=2), "`logprobs` is not true"),
    "top-logprobs-many": (chat(logprobs=True, top_logprobs=21), "less than or equal to 20"),
    "metadata-number": (chat(metadata={"a": 1}), "'metadata.a'"),
    "user-number": (chat(user=5), "'user'"),
    "tools-object": (chat(tools={}), "an array"),
    "tool-of-no-type": (chat(tools=[{"function": {"name": "f"}}]), "tools[0]"),
    "tool-name": (with_tool(name="no spaces"), "tools[0].function.name"),
    "tool-twice": (chat(tools=[logs.WEATHER, logs.WEATHER]), "offered twice"),
    "tool-parameters": (with_tool(parameters=[]), "tools[0].function.parameters"),
    "many-tools": (chat(tools=[logs.tool(f"f{n}") for n in range(129)]), "at most 128"),
    "choice-without-tools": (chat(tool_choice="auto"), "where `tools` are offered"),
    "choice-of-none": (chat(tools=[logs.WEATHER], tool_choice="any"), "'none', 'auto'"),
    "choice-of-another": (
        chat(tools=[logs.WEATHER], tool_choice={"type": "function", "function": {"name": "x"}}),
        "offered: weather",
    ),
    "impossible-schema": (
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "required": ["a"],
            "properties": {"a": {"type": "string", "minLength": 5, "maxLength": 2}}}}}],
            tool_choice="required"),
        "constrain",
    ),
    "schema-of-text": (
        chat(tools=[{"type": "function", "function": {
            "name": "f", "parameters": {"type": "string"}}}], tool_choice="required"),
        "expected a JSON Schema of type object",
    ),
    "format": (chat(response_format={"type": "xml"}), "json_schema"),
    "format-without-schema": (chat(response_format={"type": "json_schema"}), "json_schema"),
    "format-impossible": (
        chat(response_format={"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "object", "properties": {"a": {"pattern": "("}}}}}),
        "constrain",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_a_bad_body_is_refused_with_what_would_be_right(
    gateway: RunningGateway, body: Any, expected: str
):
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = gateway.post("/v1/chat/completions", content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert expected in error["message"]


def test_code_with_many_brackets_may_be_a_calls_argument(gateway: RunningGateway):
    arguments = json.dumps({"file": "x[0]; " * 60_000})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    asked = chat(messages=[*OK, {"role": "assistant", "tool_calls": [call]}])
    assert gateway.post("/v1/chat/completions", json=asked).status_code == 200


def test_the_last_of_two_equal_keys_is_asked_and_logged(tmp_path: Path):
    content = json.dumps("b " + script(say="x"))
    message = f'{{"role": "user", "content": "a", "content": {content}}}'
    body = f'{{"model": "none", "model": "support", "messages": [{message}]}}'
    with gateways.running(tmp_path) as gateway:
        assert gateway.post("/v1/chat/completions", content=body).status_code == 200
        prompt = gateway.seen()["requests"][-1]["body"]["prompt"]
        gateway.stop()
        (record,) = gateway.records()
    assert "\nb <<" in prompt
    assert record["request"]["messages"] == [{"role": "user", "content": "b " + script(say="x")}]


def test_a_bad_completion_is_refused(gateway: RunningGateway):
    for body in (
        {"prompt": 5},
        {"prompt": ["a", "b"]},
        {"prompt": "a", "echo": True},
        {"prompt": "a", "echo": 0},
        {},
    ):
        answer = gateway.post("/v1/completions", json={"model": "support", **body})
        assert answer.status_code == 400


@pytest.mark.parametrize("size", [5 * 2**20, 20 * 2**20])
def test_a_long_body_is_refused(gateway: RunningGateway, size: int):
    answer = gateway.ask("x" * size)
    assert answer.status_code == 413
    assert "expected at most 4194304" in answer.json()["error"]["message"]


def test_a_body_that_unpacks_to_much_is_refused(gateway: RunningGateway):
    bomb = gzip.compress(b'{"model":"' + b"x" * (64 * 2**20))
    header = {"content-encoding": "gzip"}
    answer = gateway.post("/v1/chat/completions", content=bomb, headers=header)
    assert answer.status_code == 413
    body = gzip.compress(json.dumps(chat()).encode())
    answer = gateway.post("/v1/chat/completions", content=body, headers=header)
    assert answer.status_code == 200


def test_an_unknown_path_or_method_names_the_right_ones(gateway: RunningGateway):
    assert "/v1/chat/completions" in gateway.get("/v1/embeddings").json()["error"]["message"]
    answer = gateway.get("/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "params"),
    [
        pytest.param("/v1/chat/completions", chat_params.CompletionCreateParamsBase, id="chat"),
        pytest.param(
            "/v1/completions", completion_params.CompletionCreateParamsBase, id="completion"
        ),
        pytest.param("/v1/responses", ResponseCreateParamsBase, id="responses"),
    ],
)
def test_no_parameter_of_openais_is_unknown(gateway: RunningGateway, path: str, params: type):
    names = get_type_hints(params)
    answer = gateway.post(path, json=dict.fromkeys(names) | {"model": "support"})
    assert "unknown" not in answer.json()["error"]["code"], answer.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
@pytest.mark.parametrize("token", [None, "", "Bearer x", "Bearer fw_00000000_x", "Basic eDp5"])
def test_a_wrong_token_is_refused(gateway: RunningGateway, path: str, token: str | None):
    headers = {} if token is None else {"authorization": token}
    answer = httpx.post(gateway.url + path, json=chat(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_token_is_held_to_its_scope(tmp_path: Path):
    file, now = tmp_path / "tokens.json", datetime.now(UTC)
    with gateways.running(tmp_path) as gateway:
        tokens = {
            "other": client_tokens.add_token(file, "other", now=now, workloads=["shop*"]),
            "votes": client_tokens.add_token(file, "votes", now=now, kinds=["feedback"]),
            "late": client_tokens.add_token(
                file, "late", now=now, expires_at=now + timedelta(seconds=0.5)
            ),
            "few": client_tokens.add_token(file, "few", now=now, quota=Quota(requests=1)),
            "small": client_tokens.add_token(file, "small", now=now, quota=Quota(bytes=10)),
        }

        def ask(name: str) -> httpx.Response:
            header = {"authorization": f"Bearer {tokens[name]}"}
            return httpx.post(f"{gateway.url}/v1/chat/completions", json=chat(), headers=header)

        time.sleep(0.6)
        answers = {name: ask(name) for name in tokens}
        again = ask("few")
        models = httpx.get(
            f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {tokens['other']}"}
        )
    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == {"other": 403, "votes": 403, "late": 401, "few": 200, "small": 413}
    assert "expired" in answers["late"].json()["error"]["message"]
    assert (again.status_code, int(again.headers["retry-after"]) > 0) == (429, True)
    assert models.json()["data"] == []


def test_one_client_cannot_take_all_places(tmp_path: Path):
    settings = {"limits": {"open_requests": 4}}
    with gateways.running(tmp_path, settings) as gateway, httpx.Client() as client:
        other = client_tokens.add_token(tmp_path / "tokens.json", "b", now=datetime.now(UTC))
        slow = chat(
            messages=[{"role": "user", "content": script(say="a b c d", delay=1)}], stream=True
        )
        header = {"authorization": f"Bearer {gateway.token}"}
        url = f"{gateway.url}/v1/chat/completions"
        with (
            client.stream("POST", url, json=slow, headers=header) as first,
            client.stream("POST", url, json=slow, headers=header) as second,
        ):
            assert (first.status_code, second.status_code) == (200, 200)
            refused = gateway.ask()
            allowed = httpx.post(url, json=chat(), headers={"authorization": f"Bearer {other}"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert allowed.status_code == 200


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    home = tmp_path_factory.mktemp("impatient")
    with gateways.running(home, limits={"request_seconds": 1.0}) as gateway:
        yield gateway


@pytest.mark.slow
def test_a_slow_request_is_cut_and_a_slow_answer_is_not(impatient: RunningGateway):
    with receivers.connected(impatient.url) as client:
        client.sendall(receivers.head(impatient.token, 90, "/v1/chat/completions") + b"{")
        assert client.recv(100).startswith(b"HTTP/1.1 408")
    answer = impatient.ask(script(say="a b c d", delay=0.6), stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert impatient.ask(script(say="a b c d", delay=0.6)).status_code == 200


def test_an_answer_that_takes_too_long_is_asked_for_once(tmp_path: Path):
    with gateways.running(tmp_path, {"limits": {"answer_seconds": 0.2}}) as gateway:
        client = gateway.openai.with_options(max_retries=2)
        slow = script(say="x", wait=1)
        with pytest.raises(openai.InternalServerError, match="took more than"):
            client.chat.completions.create(
                model="support", messages=[{"role": "user", "content": slow}]
            )
        assert len(gateway.seen()["requests"]) <= 1  # none if the time is up before


def test_feedback_needs_an_id_that_this_client_was_given(gateway: RunningGateway):
    made = gateway.ask().json()["id"]
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"response_id": made, "kind": "thumb", "value": "up"}, 200),
        ({"response_id": made[:-1], "kind": "thumb", "value": "up"}, 404),
        ({"response_id": "chatcmpl-1", "kind": "thumb", "value": "up"}, 404),
        ({"response_id": 5, "kind": "thumb", "value": "up"}, 400),
        ({"response_id": made, "kind": "applause", "value": "up"}, 400),
        ({"response_id": made, "kind": "thumb"}, 400),
        ({}, 400),
    ]
    for body, status in bodies:
        answer = gateway.post("/v1/feedback", json=body)
        assert (answer.status_code, body) == (status, body)
        assert ("error" in answer.json()) == (status != 200)
    other = client_tokens.add_token(gateway.home / "tokens.json", "foreign", now=datetime.now(UTC))
    header = {"authorization": f"Bearer {other}"}
    answer = httpx.post(f"{gateway.url}/v1/feedback", json=bodies[0][0], headers=header)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_found")


def test_feedback_is_held_to_its_tokens_workloads(gateway: RunningGateway):
    made = gateway.ask().json()["id"]
    token = client_tokens.add_token(
        gateway.home / "tokens.json", "app", now=datetime.now(UTC), workloads=["shop"]
    )
    answer = httpx.post(
        f"{gateway.url}/v1/feedback",
        json={"response_id": made, "kind": "thumb", "value": "up"},
        headers={"authorization": f"Bearer {token}"},
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")


def test_the_receiver_is_in_the_same_process_if_wanted(tmp_path: Path):
    with gateways.running(tmp_path, receiver=True) as gateway:
        answer = gateway.ask().json()
        line = logs.interaction(response_id="r9")
        assert gateway.post("/v1/interactions", json=line).json() == {"accepted": 1}
        foreign = {
            "timestamp": 1760000060, "workload_id": "support", "response_id": "r9",
            "actor_id": "ann", "kind": "thumb", "value": "down",
        }  # fmt: skip
        packed = gzip.compress(json.dumps(foreign).encode())
        header = {"content-encoding": "gzip"}
        assert gateway.post("/v1/feedback", json=foreign).json() == {"accepted": 1}
        assert gateway.post("/v1/feedback", content=packed, headers=header).is_success
        own = {"response_id": answer["id"], "kind": "thumb", "value": "up", "actor_id": "bob"}
        assert gateway.post("/v1/feedback", json=own).json()["workload"] == "support"
        assert "/v1/traces" in gateway.get("/openapi.json").json()["paths"]
        assert gateway.get("/docs").is_success
        unknown = gateway.post("/v1/embeddings", json={"model": "support", "input": "Hi"})
        assert unknown.status_code == 404
        assert "/v1/chat/completions" in unknown.json()["error"]["message"]
        gateway.stop()
        ids = {record["response"]["id"] for record in gateway.records()}
        votes = [(vote["response_id"], vote["actor_id"]) for vote in gateway.records("feedback")]
    assert ids == {"r9", answer["id"]}
    assert votes == [("r9", "ann"), ("r9", "ann"), (answer["id"], "bob")]


def test_the_description_has_the_fields_that_are_read_and_what_they_refer_to(
    gateway: RunningGateway,
):
    page = gateway.get("/openapi.json")
    schemas = page.json()["components"]["schemas"]
    assert {"n", "top_logprobs", "tool_choice"} <= schemas["Chat"]["properties"].keys()
    assert schemas["Chat"]["properties"]["temperature"]["anyOf"][0]["maximum"] == 2
    named = set(re.findall(r'"#/components/schemas/(\w+)"', page.text))
    assert {"Chat", "Completion", "Responses", "AnswerFeedback"} <= named <= schemas.keys()
