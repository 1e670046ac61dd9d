"""Write answers in the form of OpenAI's Responses API: whole ones, and the events of a stream.

An answer's items are its text, as one message, and its calls. In a stream a message ends where a
call comes; text after that is another message.
"""

import secrets
import time
from collections.abc import Iterable

import orjson

from components.schema import Json
from components.serve import chat_answer
from components.serve.body_fields import Obj
from components.serve.chat_answer import AnswerDraft, VisiblePart
from components.serve.openai_error import OpenAiError

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not complete, by why it ended."""

_ECHOED: Obj = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 0.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "user": None,
}
"""What an answer repeats of its request, and what counts where that leaves it out."""

_TOOL: Obj = {"description": None, "parameters": None, "strict": None}


def whole(answer: AnswerDraft, request: Obj) -> bytes:
    """Return a whole answer; ``request`` is the body as it was sent."""
    text, items = "".join(answer.text), list[Obj]()
    if text or not answer.calls:
        logprobs = chat_answer.token_logprobs(answer.logprobs)
        items.append(_message(_new_id("msg"), text, logprobs, _status(answer)))
    items += [_call(_new_id("fc"), *_called(call)) for call in answer.calls]
    return orjson.dumps(_ended(answer, request, items))


class ResponseEvents:
    """Writes the events of one stream.

    Args:
        answer: The answer, of which it is known who gives it.
        request: The body as it was sent.
    """

    def __init__(self, answer: AnswerDraft, request: Obj) -> None:
        self._answer, self._request = answer, request
        self._number = 0  # of the next event
        self._items: list[Obj] = []  # those that ended
        self._message: str | None = None  # the id of the message that is open
        self._text: list[str] = []  # of that message
        self._logprobs: list[Json] = []  # of that message, or of text that is held back

    def part(self, part: VisiblePart) -> bytes:
        """Return the events of a part."""
        events = self._begin()
        logprobs = chat_answer.token_logprobs(part.logprobs)
        if part.text and self._message is None:
            logprobs, self._logprobs = [*self._logprobs, *logprobs], []
            events += self._open_message()
        self._logprobs += logprobs
        if self._message is not None and (part.text or logprobs):
            self._text.append(part.text)
            events.append(
                self._of_text("response.output_text.delta", delta=part.text, logprobs=logprobs)
            )
        if part.calls:
            events += self._close_message("completed")
        for call in part.calls:
            events += self._call(*_called(call))
        return b"".join(events)

    def last(self, answer: AnswerDraft) -> bytes:
        """Return the end of a whole answer."""
        events = self._begin()
        if not self._items and self._message is None:
            events += self._open_message()
        events += self._close_message(_status(answer))
        response = _ended(answer, self._request, self._items)
        return b"".join([*events, self._event(f"response.{response['status']}", response=response)])

    def failed(self, error: OpenAiError) -> bytes:
        """Return the end of an answer that broke off.

        The last event makes clients of OpenAI raise an error, which look for no event that failed.
        """
        failure: Obj = {"code": "server_error", "message": error.message}
        response = _response(self._answer, self._request, "failed", self._items, error=failure)
        sent = error.to_json()
        about = {name: sent[name] for name in ("code", "message", "param")}
        return self._event("response.failed", response=response) + self._event(
            "error", **about, error=sent
        )

    def _begin(self) -> list[bytes]:
        if self._number:
            return []
        response = _response(self._answer, self._request, "in_progress", [])
        kinds = ("response.created", "response.in_progress")
        return [self._event(kind, response=response) for kind in kinds]

    def _open_message(self) -> list[bytes]:
        self._message, self._text = _new_id("msg"), []
        item = _message(self._message, None, [], "in_progress")
        return [
            self._event("response.output_item.added", item=item, **self._place()),
            self._of_text("response.content_part.added", part=_text_part("", [])),
        ]

    def _close_message(self, status: str) -> list[bytes]:
        if self._message is None:
            return []
        text, logprobs = "".join(self._text), self._logprobs
        item = _message(self._message, text, logprobs, status)
        events = [
            self._of_text("response.output_text.done", text=text, logprobs=logprobs),
            self._of_text("response.content_part.done", part=_text_part(text, logprobs)),
            self._event("response.output_item.done", item=item, **self._place()),
        ]
        self._items.append(item)
        self._message, self._logprobs = None, []
        return events

    def _call(self, call_id: Json, name: Json, arguments: Json) -> list[bytes]:
        item_id, place = _new_id("fc"), self._place()
        begun = _call(item_id, call_id, name, "", "in_progress")
        item = _call(item_id, call_id, name, arguments)
        self._items.append(item)
        kind, at = "response.function_call_arguments", {"item_id": item_id, **place}
        return [
            self._event("response.output_item.added", item=begun, **place),
            self._event(f"{kind}.delta", delta=arguments, **at),
            self._event(f"{kind}.done", name=name, arguments=arguments, **at),
            self._event("response.output_item.done", item=item, **place),
        ]

    def _place(self) -> Obj:
        return {"output_index": len(self._items)}

    def _of_text(self, kind: str, **more: Json) -> bytes:
        return self._event(kind, item_id=self._message, content_index=0, **self._place(), **more)

    def _event(self, kind: str, **more: Json) -> bytes:
        content = orjson.dumps({"type": kind, "sequence_number": self._number, **more})
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), content)


def _response(
    answer: AnswerDraft, request: Obj, status: str, items: Iterable[Json], **more: Json
) -> Obj:
    sent = {name: value for name, value in request.items() if value is not None}
    form: Obj = {"format": {"type": "text"}}
    text, reasoning, tools = sent.get("text"), sent.get("reasoning"), sent.get("tools")
    return {
        "id": answer.id,
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": answer.names()["model"],
        "output": [*items],
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,  # an answer can't be retrieved
        "truncation": "disabled",
        "usage": None,
        **{name: sent.get(name, default) for name, default in _ECHOED.items()},
        "metadata": sent.get("metadata", {}),
        "reasoning": {"effort": None, "summary": None, **_object(reasoning)},
        "text": {**form, **{key: value for key, value in _object(text).items() if value}},
        "tools": [{**_TOOL, **_object(tool)} for tool in tools] if isinstance(tools, list) else [],
        **more,
    }


def _ended(answer: AnswerDraft, request: Obj, items: Iterable[Json]) -> Obj:
    """Return an answer that came to its end, be it one by its length."""
    used = answer.usage()
    usage: Obj = {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used["total_tokens"],
    }
    reason = INCOMPLETE.get(answer.finish or "")
    if reason is not None:
        details: Obj = {"reason": reason}
        return _response(
            answer, request, "incomplete", items, usage=usage, incomplete_details=details
        )
    now = int(time.time())
    return _response(answer, request, "completed", items, usage=usage, completed_at=now)


def _object(value: Json) -> Obj:
    return value if isinstance(value, dict) else {}


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _status(answer: AnswerDraft) -> str:
    return "incomplete" if answer.finish in INCOMPLETE else "completed"


def _message(item_id: str, text: str | None, logprobs: Json, status: str) -> Obj:
    content = [] if text is None else [_text_part(text, logprobs)]
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [*content],
    }


def _text_part(text: str, logprobs: Json) -> Obj:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _called(call: Json) -> tuple[Json, Json, Json]:
    """Return id, name and arguments of a chat's call."""
    match call:
        case {"id": call_id, "function": {"name": name, "arguments": arguments}}:
            return call_id, name, arguments
        case _:
            return None, "", ""


def _call(
    item_id: str, call_id: Json, name: Json, arguments: Json, status: str = "completed"
) -> Obj:
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }
