"""Write rows of TensorZero's tables."""

import json

from components.schema import Json

INFERENCE_ID = "0199c9b3-a580-7000-8000-000000000001"
EPISODE_ID = "0199c9b3-a580-7000-8000-000000000002"
FEEDBACK_ID = "0199c9b4-2c20-7000-8000-000000000003"
AT = 1_760_025_617.792
"""The time that INFERENCE_ID begins with, in unix seconds."""

INPUT: Json = {
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thought", "text": "Look it up."},
                {
                    "type": "tool_call",
                    "id": "call_1",
                    "name": "weather",
                    "arguments": {"city": "Rome"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "id": "call_1", "name": "weather", "result": "clear"},
                {"type": "text", "text": "And Oslo?"},
                {"type": "file", "file": {"url": "https://x.test/a.png", "mime_type": "image/png"}},
            ],
        },
    ],
}
OUTPUT: Json = [
    {"type": "text", "text": "Asking."},
    {
        "type": "tool_call",
        "id": "call_2",
        "name": "weather",
        "arguments": {"city": "Oslo"},
        "raw_name": "weather",
        "raw_arguments": '{"city":"Oslo"}',
    },
]
MESSAGES: Json = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Rome"}},
            }
        ],
        "reasoning_content": "Look it up.",
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "clear"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "And Oslo?"},
            {"type": "file", "file": {"url": "https://x.test/a.png", "mime_type": "image/png"}},
        ],
    },
]
ANSWER: Json = {
    "role": "assistant",
    "content": "Asking.",
    "tool_calls": [
        {
            "id": "call_2",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
        }
    ],
}
TOOL: Json = {
    "name": "weather",
    "description": "Tell the weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def chat_inference(**changes: Json) -> dict[str, Json]:
    """Write a row of ChatInference as ClickHouse exports it (JSONEachRow)."""
    row: dict[str, Json] = {
        "id": INFERENCE_ID,
        "function_name": "forecast",
        "variant_name": "gpt_4o_mini",
        "episode_id": EPISODE_ID,
        "input": json.dumps(INPUT),
        "output": json.dumps(OUTPUT),
        "tool_params": "",
        "inference_params": '{"chat_completion":{"temperature":0.5,"json_mode":null}}',
        "processing_time_ms": 812,
        "timestamp": "2025-10-09 08:53:20",
        "tags": {"user_id": "u-7"},
        "extra_body": None,
        "ttft_ms": None,
        "dynamic_tools": [json.dumps(TOOL)],
        "dynamic_provider_tools": [],
        "allowed_tools": None,
        "tool_choice": '"auto"',
        "parallel_tool_calls": False,
        "snapshot_hash": None,
    }
    return row | changes


def feedback(**columns: Json) -> dict[str, Json]:
    """Write a row of one of the tables of feedback."""
    return {
        "id": FEEDBACK_ID,
        "tags": {"author": "ann"},
        "timestamp": "2025-10-09 08:55:00",
        **columns,
    }
