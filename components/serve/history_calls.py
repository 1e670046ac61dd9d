"""The calls in the messages of a request: how many, how long, and whether they can be read."""

from collections.abc import Sequence
from typing import cast

import orjson

from components.chat import prompt
from components.schema import Json
from components.serve import body_fields
from components.serve.body_fields import MAX_PARTS, Obj
from components.serve.openai_error import invalid

MAX_CALLS, MAX_ARGUMENTS = 512, 2**19  # calls of all messages, characters of their arguments


def require_readable(messages: Sequence[Obj]) -> None:
    """Raise ``OpenAiError`` (400) for calls that no version was trained to read.

    Another server may read them: models write such arguments, and applications send them back.
    """
    for number, message in enumerate(messages):
        calls = message.get("tool_calls") if message.get("role") == "assistant" else None
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            try:
                prompt.render_answer(prompt.read_message({"tool_calls": [call]})).encode()
            except (ValueError, RecursionError) as error:
                raise invalid(
                    f"messages[{number}].tool_calls[{place}].function.arguments",
                    "they are not the JSON text of an object, or have half a surrogate pair",
                ) from error


def require_bounded(messages: Sequence[Json]) -> None:
    """Refuse more calls, or longer arguments, than can be written into a prompt in time.

    Arguments are JSON in a text; it may have as many parts as a body.
    """
    texts: list[str] = []
    count = 0
    for message in messages:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        calls = calls if isinstance(calls, list) else []
        count += len(calls)
        if count > MAX_CALLS:
            reason = f"they have more than {MAX_CALLS} calls; send the last ones"
            raise invalid("messages", reason)
        for call in calls:
            match call:
                case {"function": {"arguments": str(arguments)}}:
                    texts.append(arguments)
                case _:
                    pass
    if (size := sum(map(len, texts))) > MAX_ARGUMENTS:
        reason = f"the arguments of their calls have {size} characters, expected at most "
        raise invalid("messages", f"{reason}{MAX_ARGUMENTS}")
    if sum(text.count("[") + text.count("{") for text in texts) <= MAX_PARTS:
        return
    try:  # brackets in texts, as of code that was written, are no parts
        parsed = [cast("Json", orjson.loads(text)) for text in texts]
    except orjson.JSONDecodeError as error:
        raise invalid("messages", f"arguments of a call are not JSON: {error}") from error
    body_fields.require_flat(parsed)
