"""Write bodies of Gemini's ``generateContent``, and the rows that Vertex AI logs them as.

As Google's reference has them, and Elastic's integration a logged one.
"""

from components.schema import Json

ASKED: dict[str, Json] = {
    "model": "projects/shop-1/locations/us-central1/publishers/google/models/gemini-2.5-pro",
    "systemInstruction": {"role": "user", "parts": [{"text": "Be brief."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "Weather in Rome?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "Rome it is.", "thought": True},
                {
                    "functionCall": {"name": "weather", "args": {"city": "Rome"}},
                    "thoughtSignature": "CtwB",
                },
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "clear"}}}],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "weather",
                    "description": "Tell the weather",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {
                            "city": {"type": "STRING", "minLength": "1"},
                            "type": {"type": "STRING", "enum": ["RAIN", "SUN"]},
                        },
                        "required": ["city"],
                    },
                }
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
    "generationConfig": {"temperature": 0.7, "topP": 0.9, "maxOutputTokens": 512},
    "labels": {"team": "travel", "user_id": "u-7", "session_id": "s-1"},
}


def candidate(*parts: Json, reason: str | None = "STOP") -> dict[str, Json]:
    """Write an answer; a chunk of one has no reason to stop."""
    content: Json = {"role": "model", "parts": [*parts]}
    finish: dict[str, Json] = {} if reason is None else {"finishReason": reason}
    return {"content": content, **finish, "avgLogprobs": -0.2}


def answered(*candidates: Json, **changes: Json) -> dict[str, Json]:
    """Write a response."""
    return {
        "candidates": [*(candidates or [candidate({"text": "Clear."})])],
        "usageMetadata": {
            "promptTokenCount": 30,
            "candidatesTokenCount": 2,
            "thoughtsTokenCount": 40,
            "totalTokenCount": 72,
            "trafficType": "ON_DEMAND",
        },
        "modelVersion": "gemini-2.5-pro",
        "createTime": "2025-09-08T21:04:11.034753Z",
        "responseId": "y0S_aMGPArCYqsMPntGNyA4",
        **changes,
    }


def logged(asked: Json = None, answer: Json = None, **changes: Json) -> dict[str, Json]:
    """Write a row of the table in BigQuery; ``changes`` are of its own columns."""
    return {
        "endpoint": None,
        "deployed_model_id": None,
        "logging_time": "2025-09-08 21:04:22.248000 UTC",
        "request_id": 5374205265901353984,
        "request_payload": [],
        "response_payload": [],
        "model": "publishers/google/models/gemini-2.5-pro",
        "model_version": "default",
        "api_method": "GenerateContent",
        "full_request": asked or ASKED,
        "full_response": answer or answered(),
        "metadata": {"request_latency": 11225.994},
        "otel_log": None,
        **changes,
    }
