"""Write the payloads of LiteLLM's logging callbacks, and rows of its proxy's spend logs."""

import json

from components.schema import Json
from tests.support import logs, openai_completions

MESSAGES: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
]


def payload(**changes: Json) -> dict[str, Json]:
    """Write a ``StandardLoggingPayload`` as the S3 callback has it."""
    row: dict[str, Json] = {
        "id": "chatcmpl-1",
        "trace_id": "trace-1",
        "session_id": "s-1",
        "litellm_call_id": "4f1b",
        "call_type": "acompletion",
        "stream": None,
        "response_cost": 0.0001,
        "status": "success",
        "status_fields": {"llm_api_status": "success", "guardrail_status": "not_run"},
        "custom_llm_provider": "openai",
        "total_tokens": 23,
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "startTime": 1_760_000_000.25,
        "endTime": 1_760_000_001.0,
        "completionStartTime": 1_760_000_000.5,
        "response_time": 0.75,
        "model": "gpt-4o-mini",
        "model_id": "d1",
        "model_group": "small",
        "api_base": "https://api.openai.com",
        "metadata": {
            "user_api_key_alias": "shop-key",
            "user_api_key_user_id": None,
            "requester_metadata": {"tenant": "a"},
        },
        "cache_hit": None,
        "cache_key": None,
        "request_tags": ["beta"],
        "end_user": "u-7",
        "requester_ip_address": "10.0.0.1",
        "messages": MESSAGES,
        "response": openai_completions.completion(),
        "error_str": None,
        "error_information": {"error_code": "", "error_class": "", "error_message": ""},
        "model_parameters": {"temperature": 0.2, "tools": [logs.WEATHER], "stream": False},
        "hidden_params": {"model_id": "d1"},
        "guardrail_information": None,
    }
    return row | changes


ASKED: dict[str, Json] = {
    "model": "small",
    "messages": MESSAGES,
    "temperature": 0.2,
    "tools": [logs.WEATHER],
    "metadata": {"tenant": "a"},
}


def spend_log(**changes: Json) -> dict[str, Json]:
    """Write a row of ``LiteLLM_SpendLogs`` as Postgres' ``row_to_json`` has it."""
    row: dict[str, Json] = {
        "request_id": "chatcmpl-1",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.0001,
        "total_tokens": 23,
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "startTime": "2025-10-09T08:53:20.250",
        "endTime": "2025-10-09T08:53:21.000",
        "completionStartTime": "2025-10-09T08:53:20.500",
        "model": "gpt-4o-mini",
        "model_id": "d1",
        "model_group": "small",
        "custom_llm_provider": "openai",
        "api_base": "https://api.openai.com",
        "user": "default_user_id",
        "metadata": {
            "user_api_key_alias": "shop-key",
            "status": "success",
            "error_information": {"error_code": "", "error_class": ""},
            "spend_logs_metadata": {"team": "shoes"},
        },
        "cache_hit": "None",
        "cache_key": "Cache OFF",
        "request_tags": ["beta"],
        "team_id": "",
        "end_user": "u-7",
        "requester_ip_address": None,
        "messages": {},
        "response": openai_completions.completion(),
        "session_id": "s-1",
        "status": "success",
        "proxy_server_request": ASKED,
    }
    return row | changes


def as_text(row: dict[str, Json]) -> dict[str, Json]:
    """Write a row whose objects are JSON text, as those of a CSV file are."""
    return {
        key: json.dumps(value) if isinstance(value, dict | list) else value
        for key, value in row.items()
    }
