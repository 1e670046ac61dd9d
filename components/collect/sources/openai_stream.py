"""Put the chunks of a streamed chat completion together into the response they were."""

from components.collect.sources import shape
from components.collect.sources.shape import Obj
from components.schema import Json

HEAD = ("id", "created", "model", "service_tier", "system_fingerprint")
"""What each chunk repeats about the whole response."""


def events(text: str, at: str) -> list[Json]:
    """Read server-sent events (``data: {...}`` lines) as the chunks they carry."""
    lines = (
        line.removeprefix("data:").strip() for line in text.splitlines() if line[:5] == "data:"
    )
    found = [shape.parsed(line, at) for line in lines if line != "[DONE]"]
    if not found:
        raise shape.unknown(at, text, "a response, or the `data:` lines of a stream")
    return found


def assemble(chunks: list[Json], at: str) -> Obj:
    """Write the response that ``chunks`` (OpenAI ``chat.completion.chunk`` objects) stream.

    Texts and call arguments are joined piece by piece; of everything else the last word counts.
    """
    whole: Obj = {"object": "chat.completion"}
    choices: dict[int, Obj] = {}
    for path, chunk in shape.objects(chunks, at):
        if "error" in chunk:
            raise shape.wrong(f"{path}error", chunk["error"], "a chunk of an answer")
        whole |= {
            key: chunk[key] for key in HEAD if key not in whole and chunk.get(key) is not None
        }
        if chunk.get("usage") is not None:
            whole["usage"] = chunk["usage"]
        for choice_path, piece in shape.objects(
            shape.may_array(chunk, "choices", path), f"{path}choices"
        ):
            _add(choices, piece, choice_path)
    if not choices:
        raise shape.missing(f"{at}[].choices", "at least one choice in the chunks of a stream")
    whole["choices"] = [_closed(choices[index]) for index in sorted(choices)]
    return whole


def _add(choices: dict[int, Obj], piece: Obj, at: str) -> None:
    """Add one chunk's piece to the choice that it continues."""
    index = _index(piece, at)
    choice = choices.setdefault(
        index, {"index": index, "message": {"role": "assistant"}, "finish_reason": None}
    )
    if piece.get("finish_reason") is not None:
        choice["finish_reason"] = piece["finish_reason"]
    delta = shape.may_object(piece, "delta", at)
    _join(shape.want_object(choice, "message"), delta, f"{at}delta.")
    if logprobs := shape.may_object(piece, "logprobs", at):
        _join(_held(choice, "logprobs"), logprobs, f"{at}logprobs.")


def _join(whole: Obj, piece: Obj, at: str) -> None:
    """Add a piece: texts and lists go on where they ended, calls by their index."""
    for key, value in piece.items():
        before = whole.get(key)
        if key == "tool_calls":
            _join_calls(whole, shape.may_array(piece, key, at), f"{at}{key}")
        elif key == "function_call" and isinstance(value, dict):
            _join(_held(whole, key), value, f"{at}{key}.")
        elif key == "role":
            whole[key] = value or before
        elif isinstance(before, str) and isinstance(value, str):
            whole[key] = before + value
        elif isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif value is not None or key not in whole:
            whole[key] = [*value] if isinstance(value, list) else value


def _join_calls(message: Obj, pieces: list[Json], at: str) -> None:
    """Add pieces of calls, which are held by index until the choice is closed."""
    calls = _held(message, "tool_calls")
    for path, piece in shape.objects(pieces, at):
        call = _held(calls, str(_index(piece, path)))
        call |= {key: piece[key] for key in ("id", "type") if piece.get(key) is not None}
        _join(
            _held(call, "function"), shape.may_object(piece, "function", path), f"{path}function."
        )


def _closed(choice: Obj) -> Obj:
    """Write a choice whose pieces are all there; its message says its content, if only null."""
    message = shape.want_object(choice, "message")
    message.setdefault("content", None)
    if calls := shape.may_object(message, "tool_calls"):
        message["tool_calls"] = [calls[index] for index in sorted(calls, key=int)]
    return choice


def _held(holder: Obj, key: str) -> Obj:
    """Give the object under ``key``, a new one if there is none."""
    value = holder.get(key)
    if not isinstance(value, dict):
        holder[key] = value = {}
    return value


def _index(piece: Obj, at: str) -> int:
    index = piece.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int):
        raise shape.wrong(f"{at}index", index, "a whole number")
    return index
