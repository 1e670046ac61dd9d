"""Answers of the OpenAI-compatible servers that ``serve.yaml`` names as fallbacks."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import TypeAlias, cast

from components.schema import Json
from components.serve import chat_answer
from components.serve.answer_log import Interaction
from components.serve.body_fields import Obj
from components.serve.chat_answer import AnswerDraft, VisiblePart
from components.serve.engines import http_upstream
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.openai_url import OpenAiUpstream
from components.serve.engines.serving_engine import TokenLogprob, UpstreamError, token_count
from components.serve.settings import Fallback, OpenAiFallback, ServeSettings

CallPlace: TypeAlias = tuple[int, int]  # a call's number, and which one of that number it is


class FallbackServers:
    """A client for each server; ``environment`` has their keys."""

    def __init__(self, settings: ServeSettings, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._servers = dict[OpenAiFallback, OpenAiUpstream]()
        self.use(settings)

    def use(self, settings: ServeSettings) -> None:
        """Add the servers of these settings; requests may still be asking earlier ones."""
        self._most_tokens = settings.limits.max_tokens
        for fallback in _all_fallbacks(settings):
            if fallback not in self._servers:
                self._servers[fallback] = _server(fallback, self._environment, settings)

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers.values():
            await server.close()

    async def ask(
        self,
        fallback: OpenAiFallback,
        interaction: Interaction,
        draft: AnswerDraft,
    ) -> AsyncGenerator[VisiblePart]:
        """Yield a server's answer, whose own template renders the request; note in the draft who.

        It keeps the name in the settings if it calls itself a version of the workload: another
        gateway numbers its versions for itself, and nobody here has proved one.

        Raises:
            UpstreamError: It failed, or its answer is none of OpenAI's form.
        """
        server, request = self._servers[fallback], interaction.request
        traceparent, ours = interaction.traceparent, f"{interaction.workload}@"
        body = {name: value for name, value in request.body.items() if name != "stream_options"}
        for name in ("max_tokens", "max_completion_tokens"):
            if isinstance(length := body.get(name), int):
                body[name] = min(length, self._most_tokens)
        if not request.is_streamed:
            answer = await server.chat(body, traceparent=traceparent)
            yield _read_whole(fallback, draft, answer, ours)
            return
        body["stream_options"] = {"include_usage": True}
        calls: dict[CallPlace, Obj] = {}
        async with aclosing(server.stream_chat(body, traceparent=traceparent)) as events:
            async for event in events:
                yield _read_chunk(draft, event, calls, ours)
        if draft.finish is None:
            raise UpstreamError(502, f"{fallback.name}: the answer was cut", is_retryable=True)
        if calls:
            yield VisiblePart(calls=[_as_openais(calls[place]) for place in sorted(calls)])


def _read_whole(
    fallback: OpenAiFallback, draft: AnswerDraft, answer: Obj, ours: str
) -> VisiblePart:
    match answer:
        case {"choices": [{"message": {**message}, "finish_reason": str(finish), **choice}, *_]}:
            pass
        case _:
            raise UpstreamError(
                502, f"{fallback.name}: expected a completion, found none", is_retryable=True
            )
    draft.finish = finish
    _read_head(draft, answer, ours)
    calls = message.get("tool_calls")
    listed = calls if isinstance(calls, list) else []
    made = [_as_openais(call) for call in listed if isinstance(call, dict)]
    return VisiblePart(_text(message), made, _logprobs(choice.get("logprobs")))


def _read_chunk(
    draft: AnswerDraft, event: Obj, calls: dict[CallPlace, Obj], ours: str
) -> VisiblePart:
    """Read a chunk of another server; return it without its calls, which are gathered."""
    _read_head(draft, event, ours)
    match event.get("choices"):
        case [{"delta": {**delta}, **choice}, *_]:
            pass
        case _:
            return VisiblePart()
    if isinstance(finish := choice.get("finish_reason"), str) and finish:  # "": not yet
        draft.finish = finish
    pieces = delta.get("tool_calls")
    for piece in pieces if isinstance(pieces, list) else []:
        match piece:
            case {"function": {**function}, **head}:
                pass
            case _:
                continue
        call = calls.setdefault(
            _place(head, function, calls),
            {"id": head.get("id"), "type": "function", "function": {"name": "", "arguments": ""}},
        )
        whole = cast("dict[str, str]", call["function"])
        if isinstance(name := function.get("name"), str):
            whole["name"] += name
        if (arguments := function.get("arguments")) is not None:
            whole["arguments"] += _arguments(arguments)
    return VisiblePart(_text(delta), logprobs=_logprobs(choice.get("logprobs")))


def _place(head: Obj, function: Obj, calls: Mapping[CallPlace, Obj]) -> CallPlace:
    """Return which call a piece is of.

    Servers that do not number calls name a new one by its id, and so do those that give all of them
    one number. But some give each piece an id of its own: only a new call has a name.
    """
    number, name = head.get("index"), head.get("id")
    last = max(calls, default=(-1, 0))
    if not isinstance(number, int):
        if name is None:
            return max(last, (0, 0))
        return next((at for at, call in calls.items() if call["id"] == name), (last[0] + 1, 0))
    known = max((at for at in calls if at[0] == number), default=None)
    if known is None:
        return number, 0
    is_new = bool(function.get("name")) and name not in (None, "", calls[known]["id"])
    return (number, known[1] + 1) if is_new else known


def _as_openais(call: Obj) -> Obj:
    """Return a call with what clients expect of it, and some servers leave out."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    arguments = _arguments(function.get("arguments"))
    return {
        **call,
        "id": call.get("id") or chat_answer.call_id(),
        "type": "function",
        "function": {**function, "arguments": arguments},
    }


def _arguments(arguments: Json) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def _logprobs(logprobs: Json) -> tuple[TokenLogprob, ...]:
    """Return a chat's log-probabilities; what are none are left out."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    entries = [_logprob(entry) for entry in content] if isinstance(content, list) else []
    return tuple(entry for entry in entries if entry is not None)


def _logprob(entry: Json) -> TokenLogprob | None:
    match entry:
        case {"token": str(token), "logprob": (int() | float()) as value, **others}:
            listed = others.get("top_logprobs")
        case _:
            return None
    tops = [_logprob(top) for top in listed] if isinstance(listed, list) else []
    return TokenLogprob(token, value, tuple((top.token, top.logprob) for top in tops if top))


def _text(message: Mapping[str, Json]) -> str:
    """Return a message's text: in parts at some servers, or a refusal instead of it."""
    content, refusal = message.get("content"), message.get("refusal")
    texts = [content]
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(text for text in (*texts, refusal) if isinstance(text, str))


def _read_head(draft: AnswerDraft, answer: Obj, ours: str) -> None:
    model = answer.get("model")
    if isinstance(model, str) and model and not model.startswith(ours):
        draft.model = model
    match answer.get("usage"):
        case {"prompt_tokens": prompt, "completion_tokens": completion, **more}:
            draft.prompt_tokens = token_count(prompt)
            draft.completion_tokens = token_count(completion)
            details = more.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            draft.cached_tokens = token_count(cached)
        case _:
            pass


def _all_fallbacks(settings: ServeSettings) -> Iterator[OpenAiFallback]:
    lists: list[tuple[Fallback, ...]] = [settings.fallbacks]
    lists += [own.fallbacks or () for own in settings.workloads.values()]
    for fallbacks in lists:
        for fallback in fallbacks:
            if isinstance(fallback, OpenAiFallback):
                yield fallback


def _server(
    fallback: OpenAiFallback, environment: Mapping[str, str], settings: ServeSettings
) -> OpenAiUpstream:
    upstream = HttpUpstream(
        fallback.url,
        api_key=http_upstream.read_key(fallback.api_key_env, environment, fallback.name),
        connect_seconds=settings.engine.connect_seconds,
        patience_seconds=settings.engine.first_byte_seconds,
        answer_seconds=settings.limits.answer_seconds,
    )
    return OpenAiUpstream(fallback.name, upstream, fallback.model)
