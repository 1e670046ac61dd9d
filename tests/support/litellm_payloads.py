"""Write the payloads of LiteLLM's logging callbacks."""

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
