"""A production model's server: it takes whatever OpenAI's takes, and can misbehave.

What it does is scripted by the request, ``<<{"cut": 2}>>`` in a message: ``status``, ``say``,
``media`` and ``headers`` (an answer of these), ``gzip``, ``wait`` (seconds before the answer),
``delay`` (seconds between two pieces), ``cut`` (ends after so many events), ``drop`` (breaks the
connection there), ``fail`` (an error event there), ``pad`` (characters of an event, or of a whole
answer), ``pieces`` (how many).
"""

import asyncio
import json
from contextlib import suppress
from typing import Any

import uvloop
from aiohttp import web

from tests.support.forking import Ready
from tests.support.scripted_engine import SCRIPT

USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 20,
    "total_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 0},
}
CALL = {"name": "weather", "arguments": '{"city": "Rome"}'}
ERROR = {"error": {"message": "overloaded", "type": "x", "param": None, "code": "busy"}}

SEEN: list[dict[str, Any]] = []
STATE = {"cancelled": 0, "open": 0}


def whole(body: dict[str, Any], script: dict[str, Any]) -> dict[str, Any]:
    """Answer a chat, a completion or a request of the Responses API."""
    head = {"id": "theirs-1", "created": 7, "model": f"{body['model']}-2026"}
    text = "x" * script["pad"] if "pad" in script else "It is dry."
    if "input" in body:
        part = {"type": "output_text", "text": text, "annotations": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
        used = {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50}
        state = {"status": "completed", "output": [message], "usage": used}
        return {**head, "object": "response", "created_at": 7, **state}
    if "prompt" in body:
        choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        return {**head, "object": "text_completion", "choices": [choice], "usage": USAGE}
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": "Hm."}
    if body.get("tools"):
        call = {"id": "c1", "type": "function", "function": CALL}
        message |= {"content": None, "tool_calls": [call]}
    end = "tool_calls" if body.get("tools") else "stop"
    choices = [
        {"index": index, "message": message, "finish_reason": end, "logprobs": None}
        for index in range(body.get("n") or 1)
    ]
    return {
        **head, "object": "chat.completion", "choices": choices, "usage": USAGE,
        "service_tier": "default", "metadata": body.get("metadata"),
    }  # fmt: skip


def events(body: dict[str, Any], script: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the events of a stream."""
    answer = whole(body, script)
    if "input" in body:
        begun = answer | {"status": "in_progress", "output": []}
        said: dict[str, Any] = {"type": "response.output_text.delta", "delta": "It is dry."}
        return [
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {**said, "item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": [],
             "sequence_number": 1},
            {"type": "response.completed", "sequence_number": 2, "response": answer},
        ]  # fmt: skip
    has_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    head = {key: answer[key] for key in ("id", "created", "model")}
    head |= {"object": answer["object"].replace("completion", "completion.chunk")}
    head |= {"usage": None} if has_usage else {}
    chunks: list[dict[str, Any]] = []
    for choice in answer["choices"]:
        is_padded = "pad" in script
        text = "x" * script["pad"] if is_padded else "dry "
        texts = script.get("pieces", 1 if is_padded else 3) * [text]
        if "text" in choice:
            pieces = [{"text": text} for text in texts]
        elif body.get("tools"):
            call = {"index": 0, "id": "c1", "type": "function"}
            pieces = [
                {"role": "assistant", "content": None},
                {"tool_calls": [{**call, "function": {"name": "weather", "arguments": ""}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
            ]
            pieces = [{"delta": piece} for piece in pieces]
        else:
            pieces = [{"delta": {"role": "assistant", "reasoning_content": "Hm."}}]
            pieces += [{"delta": {"content": text}} for text in texts]
        last = {"text": ""} if "text" in choice else {"delta": {}}
        for piece, finish in [
            *((piece, None) for piece in pieces),
            (last, choice["finish_reason"]),
        ]:
            part = {"index": choice["index"], **piece, "finish_reason": finish}
            chunks.append({**head, "choices": [part]})
    used = [{**head, "choices": [], "usage": USAGE}] if has_usage else []
    return [*chunks, *used]


async def answer(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    SEEN.append({"path": request.path, "headers": dict(request.headers), "body": body})
    match = SCRIPT.search(json.dumps(body).replace('\\"', '"'))
    script: dict[str, Any] = json.loads(match[1]) if match else {}
    STATE["open"] += 1
    try:
        await asyncio.sleep(script.get("wait", 0))
        if "status" in script or "say" in script:
            said = script.get("say", ERROR)
            response: web.StreamResponse = web.Response(
                status=script.get("status", 200),
                body=(said if isinstance(said, str) else json.dumps(said)).encode(),
                headers=script.get("headers"),
                content_type=script.get("media", "application/json"),
            )
        elif body.get("stream") and not script.get("ignores_stream"):
            return await _stream(request, body, script)
        else:
            response = web.json_response(whole(body, script), headers=script.get("headers"))
        if script.get("gzip"):
            response.enable_compression(web.ContentCoding.gzip)
    except asyncio.CancelledError:
        STATE["cancelled"] += 1
        raise
    finally:
        STATE["open"] -= 1
    return response


async def _stream(
    request: web.Request, body: dict[str, Any], script: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    if script.get("gzip"):
        response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    for number, event in enumerate(events(body, script)):
        if number == script.get("drop") and request.transport is not None:
            request.transport.abort()
        if number == script.get("cut"):
            return response
        if number == script.get("fail"):
            await response.write(b"data: " + json.dumps(ERROR).encode() + b"\n\n")
            return response
        kind = f"event: {event['type']}\n" if "type" in event else ""
        await response.write(f"{kind}data: {json.dumps(event)}\n\n".encode())
        await asyncio.sleep(script.get("delay", 0))
    if "input" not in body:
        await response.write(b"data: [DONE]\n\n")
    return response


async def seen(_: web.Request) -> web.Response:
    return web.json_response({"requests": SEEN, **STATE})


def serve(ready: Ready) -> None:
    """Listen on a free port, say the URL, and serve until it is killed."""
    uvloop.run(_serve(ready))


async def _serve(ready: Ready) -> None:
    app = web.Application(client_max_size=2**26)
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/completions"):
        app.router.add_post(path, answer)
    app.router.add_get("/requests", seen)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ready(f"http://127.0.0.1:{runner.addresses[0][1]}")
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
