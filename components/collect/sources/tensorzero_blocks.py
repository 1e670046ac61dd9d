"""Write TensorZero's messages, which are made of content blocks, in OpenAI's chat form."""

import json

from components.collect.sources import chat, shape
from components.collect.sources.shape import Obj
from components.schema import Json


def messages(given: Obj, at: str) -> list[Json]:
    """Write the ``input`` of an inference; each result of a tool becomes a message of its own."""
    written: list[Json] = []
    if given.get("system") is not None:
        written.append(chat.text_message("system", _template(given["system"])))
    for path, message in shape.objects(shape.want_array(given, "messages", at), f"{at}messages"):
        role = shape.want_text(message, "role", path)
        blocks = _blocks(message.get("content"), f"{path}content")
        results = [(p, block) for p, block in blocks if block.get("type") == "tool_result"]
        written += [_result(block, block_path) for block_path, block in results]
        others = [(p, block) for p, block in blocks if block.get("type") != "tool_result"]
        if others or not results:
            written.append(_message(role, others))
    return written


def answer(output: Json, at: str) -> Obj:
    """Write an output: the blocks of a chat function, or ``raw`` and ``parsed`` of a JSON one."""
    match output:
        case {"raw": str(raw)}:
            return chat.text_message("assistant", raw)
        case {"parsed": parsed} if parsed is not None:
            return chat.text_message("assistant", json.dumps(parsed, ensure_ascii=False))
        case list():
            return _message("assistant", _blocks(output, at))
        case _:
            raise shape.wrong(at, output, "an array of content blocks, or an object with `raw`")


def _blocks(content: Json, at: str) -> list[tuple[str, Obj]]:
    """Read content, which may be plain text, or the arguments of a template."""
    match content:
        case str():
            return [(f"{at}.", {"type": "text", "text": content})]
        case list():
            return list(shape.objects(content, at))
        case dict():
            return [(f"{at}.", {"type": "text", "arguments": content})]
        case _:
            raise shape.wrong(at, content, "an array of content blocks")


def _message(role: str, blocks: list[tuple[str, Obj]]) -> Obj:
    calls = [_call(block, path) for path, block in blocks if block.get("type") == "tool_call"]
    thoughts = [block.get("text") for _, block in blocks if block.get("type") == "thought"]
    shown = [_part(b, p) for p, b in blocks if b.get("type") not in ("tool_call", "thought")]
    return chat.message(role, shown, calls, thoughts)


def _part(block: Obj, at: str) -> Obj:
    """Write one block; a template shows what it was filled in with, a file stays as it is."""
    match block:
        case {"type": "text" | "raw_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "text" | "raw_text", "value": value} if value is not None:
            return {"type": "text", "text": _template(value)}
        case {"type": "text" | "template", "arguments": arguments}:
            return {"type": "text", "text": _template(arguments)}
        case {"type": "text"}:
            raise shape.missing(f"{at}text", "text")
        case _:
            return block


def _template(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _call(block: Obj, at: str) -> Obj:
    """Write a call as the model wrote it, where that is known: ``name`` is null if it was wrong."""
    name = shape.may_text(block, "raw_name", at) or shape.want_text(block, "name", at)
    arguments = block.get("raw_arguments")
    return chat.tool_call(
        name, block.get("arguments") if arguments is None else arguments, block.get("id")
    )


def _result(block: Obj, at: str) -> Obj:
    result = block.get("result")
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "tool_call_id": shape.may_text(block, "id", at), "content": content}
