"""Read what a tracing tool logged as input and output of a model's call.

Applications hand such tools whatever they have: OpenAI's request and response, a list of messages,
one message, or text. What is none of these is text to the model as well, and is kept as its JSON.
"""

import json

from components.collect.sources import chat, openai_responses, shape
from components.collect.sources.shape import Obj
from components.schema import Json

ROLES = {"human": "user", "ai": "assistant"}
"""Types of LangChain's messages that OpenAI's roles name otherwise."""


def request(given: Json, at: str) -> Obj:
    """Write the input of a call as a request."""
    match given:
        case {"messages": list(messages), **parameters}:
            return chat.request(_checked(messages, f"{at}.messages"), {**parameters})
        case {"input": list() | str(), "model": _}:
            return openai_responses.to_request(given, f"{at}.")
        case [dict(), *_]:
            return chat.request(_checked(given, at), {})
        case dict() if _is_message(given):
            return chat.request(_checked([given], at), {})
        case str() if given.strip():
            return chat.request([chat.text_message("user", given)], {})
        case dict() | list() if given:
            return chat.request([chat.text_message("user", _as_text(given))], {})
        case _:
            raise _nothing(given, at)


def choices(said: Json, at: str) -> list[Json]:
    """Write the output of a call as the choices of a response."""
    match said:
        case {"choices": list(given)} if given:
            for path, choice in shape.objects(given, f"{at}.choices"):
                message = shape.want_object(choice, "message", path)
                chat.messages([message], f"{path}message")
            return given
        case {"output": list(), "id": str(), **rest}:
            response: Obj = {"output": said["output"], "id": said["id"], **rest}
            return shape.want_array(openai_responses.to_response(response, f"{at}."), "choices")
        case _:
            message = answer(said, at)
            return [chat.choice(message, "tool_calls" if message.get("tool_calls") else "stop")]


def answer(said: Json, at: str) -> Obj:
    """Write an output that is one answer as the assistant's message; of several the last."""
    match said:
        case dict() if _is_message(said):
            message: Obj = {**said, "role": "assistant", "content": said.get("content")}
            message.pop("type", None)
            chat.messages([message], at)
            return message
        case [*_, dict(last)] if _is_message(last):
            return answer(last, f"{at}[-1]")
        case str() if said.strip():
            return chat.text_message("assistant", said)
        case dict() | list() if said:
            return chat.text_message("assistant", _as_text(said))
        case _:
            raise _nothing(said, at)


def _is_message(value: Obj) -> bool:
    return ("role" in value or "type" in value or "tool_calls" in value or len(value) == 1) and (
        "content" in value or "tool_calls" in value
    )


def _checked(messages: list[Json], at: str) -> list[Json]:
    return chat.messages([_with_role(message) for message in messages], at)


def _with_role(message: Json) -> Json:
    """Give a message of LangChain the role that its type says."""
    match message:
        case {"role": _}:
            return message
        case {"type": str(kind), "content": _, **rest}:
            return {"role": ROLES.get(kind, kind), "content": message["content"], **rest}
        case _:
            return message


def _as_text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _nothing(value: Json, at: str) -> shape.WrongShapeError:
    if value in ("", [], {}) or value is None:
        return shape.WrongShapeError(f"`{at}` is empty, wants messages or text")
    return shape.wrong(at, value, "messages or text")
