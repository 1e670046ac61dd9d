"""Entries of Kong's logging plugins for requests that its AI Proxy answered."""

import json

import pytest

from components.collect import files
from components.collect.source import Defaults, ParsedRecord, SourceRow
from components.extensions.sources import kong
from components.schema import Json
from tests.support import logs, openai_completions
from tests.support.source_reading import reason, record

ASKED: dict[str, Json] = {
    "messages": [{"role": "user", "content": "Rome?"}],
    "temperature": 0.2,
    "tools": [logs.WEATHER],
}
META: dict[str, Json] = {
    "request_model": "gpt-4o",
    "response_model": "gpt-4o-2024-08-06",
    "provider_name": "openai",
    "plugin_id": "da587462-a802-4c22-931a-e6a92c5866d1",
    "llm_latency": 1_200,
}


def answered(**changes: Json) -> str:
    choices: Json = [{"index": 0, "message": logs.say("Sunny."), "finish_reason": "stop"}]
    return json.dumps(openai_completions.completion(id="chatcmpl-1", choices=choices) | changes)


def entry(**proxy: Json) -> dict[str, Json]:
    """Write an entry of the File Log plugin."""
    payload: Json = {"request": json.dumps(ASKED), "response": answered()}
    return {
        "started_at": 1_760_000_000_250,
        "client_ip": "10.0.0.1",
        "consumer": {"username": "shop", "id": "c-1"},
        "request": {"id": "9ec9264a", "uri": "/chat", "method": "POST", "size": 323},
        "response": {"status": 200, "size": 800},
        "latencies": {"request": 1_300, "proxy": 1_250, "kong": 50},
        "ai": {"proxy": {"payload": payload, "meta": META, "usage": {}, "cache": {}, **proxy}},
    }


def test_an_entry_is_an_interaction_field_by_field():
    assert files.detect_source([entry()]) is kong
    assert record(kong, entry()) == {
        "timestamp": 1_760_000_000.25,
        "workload_id": "support",
        "client_id": "shop",
        "request": {"model": "gpt-4o", **ASKED},
        "response": json.loads(answered()),
        "trace_id": "9ec9264a",
        "duration_ms": 1_200,
        "metadata": {"provider": "openai"},
    }
    row = SourceRow(1, json.dumps(entry()), entry())
    (other,) = kong.read([row], Defaults("support", ""))
    assert isinstance(other, ParsedRecord)
    assert other.record["client_id"] == "shop"


def test_an_entry_of_an_older_version_reads_the_same_and_of_no_other_plugin():
    payload: Json = {"response": answered(id="another", model="small")}
    logged: Json = {
        "payload": {"request": json.dumps(ASKED)},
        "ai-request-transformer": {"payload": payload, "meta": META},
        "ai-proxy": {"payload": {"response": answered()}, "meta": META},
    }
    assert record(kong, {**entry(), "ai": logged}) == record(kong, entry())


def test_a_stream_is_read_and_one_that_broke_off_is_marked():
    chunks = [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
        }
        for text, finish in (("Sun", None), ("ny.", "stop"))
    ]
    for count, finish in ((2, None), (1, "upstream_cut")):
        stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks[:count])
        payload: Json = {"request": json.dumps(ASKED), "response": stream}
        converted = record(kong, entry(payload=payload))
        assert converted.get("finish") == finish
        match converted["response"]:
            case {"choices": [{"message": {"content": str(text)}}]}:
                assert text == "Sunny."[: 3 * count]
            case other:
                pytest.fail(f"{other}")


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        pytest.param(
            {"payload": {}},
            "`ai.proxy.payload.request` is missing, expected the bodies of the call: is "
            "log_payloads turned on?",
            id="no-bodies",
        ),
        pytest.param(
            {"cache": {"cache_status": "Hit"}},
            '`ai.proxy.cache.cache_status` is "Hit", expected an answer of the model',
            id="semantic-cache",
        ),
        pytest.param(
            {
                "payload": {
                    "request": json.dumps(ASKED),
                    "response": json.dumps({"error": {"message": "Rate limit"}}),
                }
            },
            "`response.error` is an object, expected a response with `choices`",
            id="error",
        ),
        pytest.param(
            {"payload": {"request": "Rome?", "response": answered()}},
            '`ai.proxy.payload.request` is the text "Rome?", expected JSON as text or as it is',
            id="no-json",
        ),
    ],
)
def test_what_is_no_call_of_a_model_is_refused(proxy: dict[str, Json], expected: str):
    assert reason(kong, entry(**proxy)) == expected
