"""Write rows of the files of OpenAI's Batch API."""

from components.schema import Json
from tests.support import logs, openai_completions


def request(custom_id: str = "1", question: str = "Rome?", **changes: Json) -> dict[str, Json]:
    """Write a row of an input file."""
    body: Json = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": question}],
        "tools": [logs.WEATHER],
    }
    row: dict[str, Json] = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }
    return row | changes


def answer(custom_id: str = "1", text: str = "Sunny.", **changes: Json) -> dict[str, Json]:
    """Write a row of an output file; ``changes`` are of the completion."""
    choices: Json = [{"index": 0, "message": logs.say(text), "finish_reason": "stop"}]
    completion = openai_completions.completion(id=f"chatcmpl-{custom_id}", choices=choices)
    row: dict[str, Json] = {
        "id": f"batch_req_{custom_id}",
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": "req", "body": completion | changes},
        "error": None,
    }
    return row
