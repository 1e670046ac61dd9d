"""Write answers in OpenAI's form: whole completions, chunks of a stream, and server-sent events."""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import orjson

from components.schema import Call, Json
from components.serve.body_fields import Obj
from components.serve.chat_request import Endpoint
from components.serve.engines.serving_engine import TokenLogprob
from components.serve.openai_error import OpenAiError
from components.serve.relayed_answer import RelayedAnswer

DONE = b"data: [DONE]\n\n"


def event(content: bytes) -> bytes:
    """Return a server-sent event."""
    return b"data: " + content + b"\n\n"


def call_id() -> str:
    """Return a new id of a call."""
    return f"call_{secrets.token_hex(12)}"


def tool_calls(calls: Iterable[Call]) -> list[Json]:
    """Return calls with new ids."""
    return [
        {
            "id": call_id(),
            "type": "function",
            "function": {
                "name": call.name.encode(errors="replace").decode(),
                "arguments": _arguments(call),
            },
        }
        for call in calls
    ]


def _arguments(call: Call) -> str:
    text = json.dumps(call.arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which the model can only write as an escape
        return json.dumps(call.arguments)
    return text


@dataclass(frozen=True, slots=True)
class VisiblePart:
    """A part of an answer for the client: text, whole calls, log-probabilities."""

    text: str = ""
    calls: Sequence[Json] = ()
    logprobs: Sequence[TokenLogprob] = ()
    relayed: bytes = b""
    """What another server wrote, for the client as it is."""


@dataclass(slots=True)
class AnswerDraft:
    """An answer under way: who gives it, and what it is so far."""

    endpoint: Endpoint
    id: str
    created: int
    model: str = ""
    fingerprint: str = ""
    alias: str | None = None
    """The model's name for the client, without a fingerprint; ``None``: that of the record."""
    text: list[str] = field(default_factory=list[str])
    calls: list[Json] = field(default_factory=list["Json"])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    has_logprobs: bool = False
    finish: str | None = None
    """``None`` until the answer ends."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    relayed: RelayedAnswer | None = None
    """The answer of another server, of which the rest here is not the text."""

    def add(self, part: VisiblePart) -> None:
        """Append a part."""
        if part.text:
            self.text.append(part.text)
        if part.calls:
            self.calls.extend(part.calls)
        if part.logprobs:
            self.logprobs.extend(part.logprobs)

    def clear(self) -> None:
        """Forget an answer that failed before the client saw any of it."""
        self.text, self.calls, self.logprobs, self.finish = [], [], [], None
        self.relayed = None

    def usage(self) -> Obj:
        """Return the token counts; those unknown are 0."""
        prompt, completion = self.prompt_tokens or 0, self.completion_tokens or 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def names(self) -> Obj:
        """Return who answers, as the client may know it."""
        if self.alias is not None:
            return {"model": self.alias, "system_fingerprint": None}
        return {"model": self.model, "system_fingerprint": self.fingerprint or None}

    def whole(self) -> bytes:
        """Return the completion for the record; another server's in the form of its own API."""
        if self.relayed is not None:
            return self.relayed.whole(self.finish)
        return self._whole()

    def shown(self, whole: bytes) -> bytes:
        """Return the completion for the client."""
        is_alike = self.relayed is not None or self.alias is None
        return whole if is_alike else self._whole(**self.names())

    def _whole(self, **names: Json) -> bytes:
        return orjson.dumps(
            {
                "id": self.id,
                "object": "chat.completion" if self.endpoint == "chat" else "text_completion",
                "created": self.created,
                "model": self.model,
                "system_fingerprint": self.fingerprint or None,
                **names,
                "choices": [self._choice()],
                "usage": self.usage(),
            }
        )

    def _choice(self) -> Obj:
        text = "".join(self.text)
        if self.endpoint == "completion":
            return {
                "index": 0,
                "text": text,
                "logprobs": completion_logprobs(self.logprobs) if self.has_logprobs else None,
                "finish_reason": self.finish,
            }
        content = text if text or not self.calls else None
        message: Obj = {"role": "assistant", "content": content, "refusal": None}
        if self.calls:
            message["tool_calls"] = self.calls
        return {
            "index": 0,
            "message": message,
            "logprobs": chat_logprobs(self.logprobs) if self.has_logprobs else None,
            "finish_reason": self.finish,
        }


class StreamWriter(Protocol):
    """Writes the events of one stream."""

    def part(self, part: VisiblePart) -> bytes:
        """Return the events of a part."""
        ...

    def last(self, answer: AnswerDraft) -> bytes:
        """Return the end of a whole answer."""
        ...

    def failed(self, error: OpenAiError) -> bytes:
        """Return the end of an answer that broke off."""
        ...


class Chunks:
    """Writes the chunks of one stream."""

    def __init__(self, answer: AnswerDraft, *, has_usage: bool) -> None:
        """``has_usage``: whether the stream ends with the usage; then every chunk has the key."""
        self._is_chat = answer.endpoint == "chat"
        self._has_usage = has_usage
        self._calls = 0  # that were written
        self._offset = 0  # of the next token whose log-probability a completion has
        self._role: Obj = {"role": "assistant"} if self._is_chat else {}
        head = {
            "id": answer.id,
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": answer.created,
            **answer.names(),
        }
        self._head = b"data: " + orjson.dumps(head)[:-1]
        self._tail = b',"usage":null}\n\n' if has_usage else b"}\n\n"

    def part(self, part: VisiblePart) -> bytes:
        """Return the chunk of a part."""
        logprobs = self._logprobs(part.logprobs) if part.logprobs else None
        return self._delta(part.text, part.calls, logprobs)

    def failed(self, error: OpenAiError) -> bytes:
        """Return the event of an error, which is the stream's last."""
        return event(error.body())

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> Obj:
        if self._is_chat:
            return chat_logprobs(entries)
        written = completion_logprobs(entries, self._offset)
        self._offset += sum(len(entry.token) for entry in entries)
        return written

    def _delta(self, text: str, calls: Sequence[Json], logprobs: Json) -> bytes:
        if not self._is_chat:
            return self._chunk({"index": 0, "text": text, "logprobs": logprobs}, None)
        delta: Obj = self._role
        self._role = {}
        if calls:
            numbered: list[Json] = [
                {"index": number, **call}
                for number, call in enumerate(calls, start=self._calls)
                if isinstance(call, dict)
            ]
            self._calls += len(calls)
            delta = {**delta, "content": text or None} if delta or text else delta
            delta = {**delta, "tool_calls": numbered}
        else:
            delta = {**delta, "content": text}
        return self._chunk({"index": 0, "delta": delta, "logprobs": logprobs}, None)

    def last(self, answer: AnswerDraft) -> bytes:
        """Return the end of the stream: the reason, the usage if asked for, and ``[DONE]``."""
        empty: Obj = {"index": 0, "logprobs": None}
        empty |= {"delta": self._role} if self._is_chat else {"text": ""}
        end = self._chunk(empty, answer.finish)
        if self._has_usage:
            end += self._head + b',"choices":[],"usage":' + orjson.dumps(answer.usage()) + b"}\n\n"
        return end + DONE

    def _chunk(self, choice: Obj, finish: str | None) -> bytes:
        choice["finish_reason"] = finish
        return self._head + b',"choices":[' + orjson.dumps(choice) + b"]" + self._tail


def with_most_probable(logprobs: Iterable[TokenLogprob], most: int) -> tuple[TokenLogprob, ...]:
    """Return tokens with only the ``most`` most probable of each position, as chats have them.

    Engines add the token itself, as OpenAI does in completions.
    """
    return tuple(
        replace(entry, top=tuple(sorted(entry.top, key=lambda top: -top[1])[:most]))
        for entry in logprobs
    )


def chat_logprobs(logprobs: Iterable[TokenLogprob]) -> Obj:
    """Return log-probabilities as chats have them."""
    return {"content": token_logprobs(logprobs), "refusal": None}


def token_logprobs(logprobs: Iterable[TokenLogprob]) -> list[Json]:
    """Return the log-probabilities of tokens."""
    return [
        {
            **_token(entry.token, entry.logprob),
            "top_logprobs": [_token(token, value) for token, value in entry.top],
        }
        for entry in logprobs
    ]


def completion_logprobs(logprobs: Iterable[TokenLogprob], offset: int = 0) -> Obj:
    """Return log-probabilities as completions have them; ``offset`` is the first token's."""
    entries = list(logprobs)
    lengths = list[Json]()
    for entry in entries:
        lengths.append(offset)
        offset += len(entry.token)
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [_finite(entry.logprob) for entry in entries],
        "top_logprobs": [
            {token: _finite(value) for token, value in entry.top} for entry in entries
        ],
        "text_offset": lengths,
    }


def _token(token: str, logprob: float) -> Obj:
    return {
        "token": token,
        "logprob": _finite(logprob),
        "bytes": [*token.encode("utf-8", "surrogatepass")],
    }


def _finite(logprob: float) -> float:
    return max(logprob, -9999.0)  # as OpenAI writes minus infinity
