"""Write spans of Braintrust's project logs, as its API's reference and its SDK have them."""

from components.schema import Json
from tests.support import logs

MESSAGES: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
]


def span(**changes: Json) -> dict[str, Json]:
    """Write the span of a call by OpenAI's client."""
    value: dict[str, Json] = {
        "id": "8b3a1c4e",
        "_xact_id": "1000194851232345123",
        "created": "2025-10-09T08:53:20.250Z",
        "org_id": "o1",
        "project_id": "p1",
        "log_id": "g",
        "input": MESSAGES,
        "output": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Dry."},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "expected": None,
        "error": None,
        "scores": {},
        "metadata": {
            "model": "gpt-4o-mini",
            "provider": "openai",
            "temperature": 0.2,
            "tools": [logs.WEATHER],
            "user_id": "u-7",
            "session_id": "s-1",
            "team": "travel",
        },
        "tags": None,
        "metrics": {
            "start": 1_760_000_000.25,
            "end": 1_760_000_001.0,
            "prompt_tokens": 20,
            "completion_tokens": 3,
            "tokens": 23,
        },
        "span_id": "s2",
        "span_parents": ["s1"],
        "root_span_id": "s1",
        "is_root": False,
        "span_attributes": {"type": "llm", "name": "Chat Completion"},
    }
    return value | changes


def root(**changes: Json) -> dict[str, Json]:
    """Write the span of an application, which has the trace's scores."""
    whole: dict[str, Json] = {
        "id": "7a2b",
        "input": "Weather in Rome?",
        "output": "Dry.",
        "scores": {"thumbs": 1, "correct": 0.5, "unknown": None},
        "span_id": "s1",
        "span_parents": None,
        "is_root": True,
        "span_attributes": {"type": "task", "name": "answer"},
    }
    return span(**whole) | changes
