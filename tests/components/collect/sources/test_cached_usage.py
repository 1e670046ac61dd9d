"""Tokens that a provider had, or has, cached are counted, however a source writes them."""

import base64
import json
from pathlib import Path

import pytest

from components.collect.sources import openai_logs
from components.extensions.sources import langfuse, langsmith, mlflow_traces, otlp
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import langsmith_rows, logs, telemetry
from tests.support.langfuse_rows import observation
from tests.support.otlp_requests import answer, question
from tests.support.source_reading import record

USED = {
    "prompt_tokens": 1000,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 900, "cache_creation_tokens": 80},
}
MESSAGE: dict[str, Json] = {"role": "user", "content": "Rome?"}


def anthropic(**used: Json) -> dict[str, Json]:
    counts: Json = {"input_tokens": 20, "output_tokens": 9, **used}
    response: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Dry."}],
        "stop_reason": "end_turn",
        "usage": counts,
    }
    return {"timestamp": 1, "request": {"messages": [MESSAGE]}, "response": response}


ANTHROPIC = anthropic(cache_read_input_tokens=900, cache_creation_input_tokens=80)


def mlflow_trace(used: dict[str, Json]) -> dict[str, Json]:
    attributes = {
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.spanInputs": {"messages": [MESSAGE]},
        "mlflow.spanOutputs": {"choices": [{"index": 0, "message": logs.say("Dry.")}]},
        "mlflow.chat.tokenUsage": used,
    }
    span: Json = {
        "span_id": base64.b64encode(bytes([1] * 8)).decode(),
        "parent_span_id": None,
        "start_time_unix_nano": 1_760_000_000_250_000_000,
        "attributes": {name: json.dumps(value) for name, value in attributes.items()},
    }
    info: Json = {"trace_id": "tr-1", "trace_metadata": {}, "tags": {}, "assessments": []}
    return {"info": info, "data": {"spans": [span]}}


def telemetry_span(read: str, written: str) -> dict[str, Json]:
    counts: dict[str, Json] = {
        "gen_ai__usage__input_tokens": 1000,
        "gen_ai__usage__output_tokens": 9,
        read: 900,
        written: 80,
    }
    content = telemetry.call(
        gen_ai__operation__name="chat",
        gen_ai__input__messages=question("Rome?"),
        gen_ai__output__messages=answer("Dry."),
        name="chat",
        **counts,
    )
    return telemetry.json_form(content)


def langsmith_run() -> dict[str, Json]:
    used: dict[str, Json] = {
        "input_tokens": 1000,
        "output_tokens": 9,
        "input_token_details": {"cache_read": 900, "cache_creation": 80},
    }
    run = langsmith_rows.run() | {"prompt_tokens": 1000, "completion_tokens": 9}
    outputs = run["outputs"]
    known = json.loads(outputs) if isinstance(outputs, str) else outputs
    assert isinstance(known, dict)
    run["outputs"] = {**known, "usage_metadata": used}
    return run


def langfuse_row(read: str, written: str) -> dict[str, Json]:
    return observation(usage_details={"input": 20, "output": 9, read: 900, written: 80})


@pytest.mark.parametrize(
    ("source", "row"),
    [
        pytest.param(openai_logs, ANTHROPIC, id="anthropic"),
        pytest.param(
            langfuse,
            langfuse_row("cache_read_input_tokens", "cache_creation_input_tokens"),
            id="langfuse",
        ),
        pytest.param(
            langfuse,
            langfuse_row("input_cache_read", "input_cache_creation"),
            id="langfuse-of-langchain",
        ),
        pytest.param(langsmith, langsmith_run(), id="langsmith"),
        pytest.param(
            mlflow_traces,
            mlflow_trace(
                {
                    "input_tokens": 1000,
                    "output_tokens": 9,
                    "cache_read_input_tokens": 900,
                    "cache_creation_input_tokens": 80,
                }
            ),
            id="mlflow",
        ),
        pytest.param(
            otlp,
            telemetry_span(
                "gen_ai__usage__cache_read__input_tokens",
                "gen_ai__usage__cache_creation__input_tokens",
            ),
            id="opentelemetry",
        ),
        pytest.param(
            otlp,
            telemetry_span(
                "gen_ai__usage__cache_read_input_tokens",
                "gen_ai__usage__cache_creation_input_tokens",
            ),
            id="openllmetry",
        ),
    ],
)
def test_cached_tokens_are_beside_the_response(source: object, row: dict[str, Json]):
    assert record(source, row)["usage"] == USED  # pyright: ignore[reportArgumentType]


def test_a_response_of_the_responses_api_says_what_was_cached():
    output: Json = [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Dry."}],
        }
    ]
    used: Json = {
        "input_tokens": 1000,
        "output_tokens": 9,
        "input_tokens_details": {"cached_tokens": 900},
    }
    response: Json = {"id": "resp_1", "status": "completed", "output": output, "usage": used}
    row: dict[str, Json] = {"timestamp": 1, "request": {"input": "Rome?"}, "response": response}
    details = {"cached_tokens": 900}
    assert record(openai_logs, row)["usage"] == {**USED, "prompt_tokens_details": details}


@pytest.mark.parametrize(
    "used", [{}, {"cache_read_input_tokens": 0, "cache_creation_input_tokens": None}]
)
def test_nothing_is_beside_a_response_whose_prompt_was_not_cached(used: dict[str, Json]):
    assert "usage" not in record(openai_logs, anthropic(**used))


def test_a_log_that_was_loaded_before_gets_its_counts_when_it_is_loaded_again(
    con: Connection, tmp_path: Path
):
    complete = record(openai_logs, ANTHROPIC)
    for number, line in enumerate(({k: complete[k] for k in complete if k != "usage"}, complete)):
        logs.load(con, logs.write(tmp_path / f"{number}.jsonl", [line]), now=logs.NOW)
    rows = con.sql(
        "select coalesce(record, payload) ->> '$.usage.prompt_tokens' from raw.interactions"
    ).fetchall()
    assert rows == [("1000",)]
