"""Write Bedrock's log of an invocation, as AWS documents it and as others have shown theirs."""

from components.schema import Json

MESSAGES: Json = [
    {"role": "user", "content": [{"text": "Weather in Rome?"}]},
    {
        "role": "assistant",
        "content": [
            {"text": "I look."},
            {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Rome"}}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "t1", "content": [{"json": {"sky": "clear"}}]}},
            {"text": "And now?"},
            {"cachePoint": {"type": "default"}},
        ],
    },
]
ASKED: dict[str, Json] = {
    "messages": MESSAGES,
    "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
    "inferenceConfig": {"maxTokens": 512, "temperature": 0.7},
    "toolConfig": {
        "tools": [
            {
                "toolSpec": {
                    "name": "weather",
                    "description": "Tell the weather",
                    "inputSchema": {"json": {"type": "object"}},
                }
            }
        ],
        "toolChoice": {"auto": {}},
    },
}


def answered(*blocks: Json, reason: str = "end_turn") -> dict[str, Json]:
    """Write what the Converse API answers, which is logged so of a stream as well."""
    return {
        "output": {"message": {"role": "assistant", "content": [*blocks]}},
        "stopReason": reason,
        "metrics": {"latencyMs": 302},
        "usage": {"inputTokens": 4, "outputTokens": 38, "totalTokens": 42},
    }


def invocation(asked: Json = None, answer: Json = None, **changes: Json) -> dict[str, Json]:
    """Write the log of one invocation; ``changes`` are of its own keys."""
    return {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": "2025-03-11T00:38:02Z",
        "accountId": "123456789012",
        "region": "us-east-1",
        "requestId": "ff4b6c63-5561-4431-93b8-06a817275900",
        "operation": "ConverseStream",
        "modelId": "amazon.nova-lite-v1:0",
        "input": {"inputContentType": "application/json", "inputBodyJson": asked or ASKED},
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": answer or answered({"text": "Clear."}),
        },
        "requestMetadata": {"user_id": "u-7", "team": "travel"},
        **changes,
    }
