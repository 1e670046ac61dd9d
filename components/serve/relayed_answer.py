"""Another server's answer: for the client as it comes, but for its id, and a copy for the log."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import orjson

from components.schema import Json
from components.serve.body_fields import Obj
from components.serve.engines import http_upstream
from components.serve.engines.serving_engine import token_count

if TYPE_CHECKING:
    from components.serve.chat_answer import AnswerDraft, VisiblePart
    from components.serve.openai_error import OpenAiError

CallPlace: TypeAlias = tuple[int, int]  # a call's number, and which one of that number it is

CUT = "upstream_cut"

ENDS = {
    "completed": "stop",
    "incomplete": "length",
    "failed": CUT,
    "cancelled": CUT,
}
"""Why an answer ended, by the state of a response of the Responses API."""


class RelayedAnswer:
    """An answer under way; it writes the client's stream, too.

    Args:
        answer_id: The id that the client sees.
        model: The model's name in the settings, for an answer that names a version of ours.
        ours: What the names of our versions begin with: another gateway numbers its own.
        drops_usage: Whether a stream has a usage that its client did not ask for.
        media_type: The server's.
        headers: The server's, as far as they are the client's.
    """

    def __init__(
        self,
        answer_id: str,
        model: str,
        ours: str,
        *,
        drops_usage: bool,
        media_type: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self.media_type, self.headers = media_type, headers
        self.is_done = False
        """Whether a stream has had its last event."""
        self.has_failed = False
        """Whether the server itself has said so in its stream."""
        self._id, self._model, self._ours = answer_id, model, ours
        self._drops_usage = drops_usage
        self._whole: Obj = {}  # all but choices and usage of a stream's chunks
        self._choices: dict[int, _Choice] = {}
        self._text = list[str]()  # of the Responses API's events
        self._held = list[bytes]()

    @property
    def is_ended(self) -> bool:
        """Whether the answer is whole: then what follows waits for the record."""
        finished = [choice.finish is not None for choice in self._choices.values()]
        return self.is_done or (bool(finished) and all(finished))

    @property
    def finish(self) -> str | None:
        """Why the answer ended."""
        if "output" in self._whole:
            details = self._whole.get("incomplete_details")
            is_filtered = isinstance(details, dict) and details.get("reason") == "content_filter"
            return "content_filter" if is_filtered else ENDS.get(str(self._whole.get("status")))
        match self._whole.get("choices"):
            case [{"finish_reason": str(finish)}, *_]:
                return finish
            case _:
                first = self._choices.get(min(self._choices, default=0))
                return first.finish if first is not None else None

    def tokens(self) -> tuple[int | None, int | None]:
        """Return the tokens of prompt and answer; ``None`` for what is no count."""
        used = self._whole.get("usage")
        used = used if isinstance(used, dict) else {}
        prompt, answer = (
            token_count(used.get(chat, used.get(response)))
            for chat, response in (
                ("prompt_tokens", "input_tokens"),
                ("completion_tokens", "output_tokens"),
            )
        )
        return prompt, answer

    def read_whole(self, content: bytes) -> bool:
        """Read an answer that is not streamed; return whether it is one."""
        match value := http_upstream.parse(content):
            case {"error": error} if error is not None:
                return False
            case (
                {"choices": [{"message": {}}, *_]}
                | {"choices": [{"text": str()}, *_]}
                | {"output": [*_]}
            ):
                self._whole = cast("Obj", value)
                self._rename(self._whole)
                self._held, self.is_done = [orjson.dumps(self._whole)], True
                return True
            case _:
                return False

    def event(self, block: bytes) -> bytes:
        """Read an event of a stream; return what the client may see by now."""
        data = http_upstream.data_of(block)
        value = http_upstream.parse(data) if data else None
        if data == b"[DONE]":
            self.is_done = True
        elif isinstance(value, dict):
            if is_failure(value):
                self.has_failed = True
            elif self._note(value):
                others = [line for line in block.splitlines() if line and line[:5] != b"data:"]
                block = b"\n".join([*others, b"data: " + orjson.dumps(value), b"", b""])
            else:
                return b""
        self._held.append(block)
        return b"" if self.is_ended else self._release()

    def _note(self, value: Obj) -> bool:
        """Copy what an event has, and change its id; return whether it is for the client."""
        kind, response = value.get("type"), value.get("response")
        if isinstance(kind, str) and kind.startswith("response."):
            if isinstance(response, dict):
                self._rename(response)
                self._whole = response
                self.is_done = response.get("status") in ENDS
            elif kind == "response.output_text.delta":
                self._text.append(str(value.get("delta")))
            return True
        self._rename(value)
        used, choices = value.get("usage"), value.get("choices")
        if used is not None:
            self._whole["usage"] = used
        for key, field in value.items():
            if key not in ("choices", "usage", "obfuscation"):
                self._whole.setdefault(key, field)
        for piece in choices if isinstance(choices, list) else []:
            if isinstance(piece, dict):
                index = piece.get("index")
                at = index if isinstance(index, int) else 0
                self._choices.setdefault(at, _Choice()).add(piece)
        if self._drops_usage and "usage" in value:
            if used is not None and choices == []:
                return False
            if used is None:
                del value["usage"]
        return True

    def _rename(self, answer: Obj) -> None:
        answer["id"] = self._id
        if str(answer.get("model", "")).startswith(self._ours):
            answer["model"] = self._model

    def whole(self, finish: str | None) -> bytes:
        """Return the answer for the log; ``finish`` is why one that is not whole ended."""
        whole = {**self._whole, "id": self._id}
        if "output" in whole:
            if not self.is_done and self._text:
                part: Json = {"type": "output_text", "text": "".join(self._text)}
                message: Json = {"type": "message", "role": "assistant", "content": [part]}
                whole["output"] = [message]
        elif "choices" not in whole:
            choices = [*sorted(self._choices.items())] or [(0, _Choice())]
            whole["object"] = str(whole.get("object", "chat.completion")).removesuffix(".chunk")
            whole["choices"] = [choice.whole(index, finish) for index, choice in choices]
        return orjson.dumps(whole)

    # The client's stream.

    def part(self, part: "VisiblePart") -> bytes:
        """Return what the server wrote."""
        return part.relayed

    def last(self, answer: "AnswerDraft") -> bytes:
        """Return what waited for the record."""
        return self._release()

    def failed(self, error: "OpenAiError") -> bytes:
        """Return the end of an answer that broke off, unless the server has written one."""
        if self.has_failed:
            return b""
        event: Obj = {"error": error.to_json()}
        if "output" in self._whole:
            return b"event: error\ndata: " + orjson.dumps({"type": "error", **event}) + b"\n\n"
        return b"data: " + orjson.dumps(event) + b"\n\n"

    def _release(self) -> bytes:
        held, self._held = b"".join(self._held), []
        return held


def is_failure(value: Json) -> bool:
    """Return whether an event, or a whole answer, says that there is none."""
    return isinstance(value, dict) and (
        value.get("error") is not None or value.get("type") == "error"
    )


class _Choice:
    """One of a stream's answers."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._is_text = False  # of a completion
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[CallPlace, Obj] = {}
        self._message: Obj = {}
        self._logprobs: dict[str, Json] = {}

    def add(self, piece: Obj) -> None:
        if isinstance(finish := piece.get("finish_reason"), str) and finish:  # "": not yet
            self.finish = finish
        if isinstance(text := piece.get("text"), str):
            self._is_text = True
            self._texts.setdefault("text", []).append(text)
        if isinstance(logprobs := piece.get("logprobs"), dict):
            _join(self._logprobs, logprobs)
        if isinstance(delta := piece.get("delta"), dict):
            for key, value in delta.items():
                self._add(key, value)

    def _add(self, key: str, value: Json) -> None:
        match key, value:
            case "tool_calls", list(pieces):
                for piece in pieces:
                    if isinstance(piece, dict):
                        self._add_call(piece)
            case "content", list(parts):
                texts = [part.get("text") for part in parts if isinstance(part, dict)]
                self._add(key, "".join(text for text in texts if isinstance(text, str)))
            case ("role", _) | (_, None):
                self._message.setdefault(key, value)
            case _, str(text):
                self._texts.setdefault(key, []).append(text)
            case _:
                _join(self._message, {key: value})

    def _add_call(self, piece: Obj) -> None:
        function = piece.get("function") or piece.get("custom")
        made = function if isinstance(function, dict) else {}
        call = self._calls.setdefault(_place(piece, made, self._calls), {})
        for key in ("id", "type"):
            if piece.get(key):
                call.setdefault(key, piece[key])
        for key in ("function", "custom"):
            if isinstance(part := piece.get(key), dict):
                texts = {name: _as_text(text) for name, text in part.items()}
                _join(call, {key: texts})

    def whole(self, index: int, finish: str | None) -> Obj:
        end: Obj = {"index": index, "logprobs": self._logprobs or None}
        end["finish_reason"] = self.finish or finish
        texts: Obj = {key: "".join(parts) for key, parts in self._texts.items()}
        if self._is_text:
            return {**end, **texts}
        message = {"role": "assistant", "content": None, **self._message, **texts}
        if self._calls:
            message["tool_calls"] = [self._calls[place] for place in sorted(self._calls)]
        return {**end, "message": message}


def _join(whole: dict[str, Json], piece: Mapping[str, Json]) -> None:
    """Add a piece: texts and lists are appended, objects joined; of others the last counts."""
    for key, value in piece.items():
        match whole.get(key), value:
            case _, None:
                whole.setdefault(key, None)
            case str(before), str():
                whole[key] = before + value
            case list(before), list():
                before.extend(value)
            case dict(before), dict():
                _join(before, value)
            case _:
                whole[key] = {**value} if isinstance(value, dict) else value


def _place(piece: Obj, function: Obj, calls: Mapping[CallPlace, Obj]) -> CallPlace:
    """Return which call a piece is of.

    Servers that do not number calls name a new one by its id, and so do those that give all of them
    one number. But some give each piece an id of its own: only a new call has a name.
    """
    number, name = piece.get("index"), piece.get("id")
    last = max(calls, default=(-1, 0))
    if not isinstance(number, int):
        if name is None:
            return max(last, (0, 0))
        return next((at for at, call in calls.items() if call.get("id") == name), (last[0] + 1, 0))
    known = max((at for at in calls if at[0] == number), default=None)
    if known is None:
        return number, 0
    is_new = bool(function.get("name")) and name not in (None, "", calls[known].get("id"))
    return (number, known[1] + 1) if is_new else known


def _as_text(value: Json) -> Json:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
