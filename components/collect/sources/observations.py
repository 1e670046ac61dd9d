"""Read what a tracing tool logged as the input and output of a model's call."""

import json

from components.collect.sources import canonical, fields, openai_api
from components.collect.sources.fields import Obj
from components.schema import Json

ROLES = {"human": "user", "ai": "assistant"}
"""Types of LangChain's messages that OpenAI's roles name otherwise."""


def request(given: Json, at: str) -> Obj:
    """Write the input of a call as a request."""
    match given:
        case {"messages": list(messages), **parameters}:
            return canonical.request(_checked(messages, f"{at}.messages"), {**parameters})
        case {"input": list() | str(), "model": _}:
            return openai_api.to_request(given, f"{at}.")
        case [dict(), *_]:
            return canonical.request(_checked(given, at), {})
        case dict() if _is_message(given):
            return canonical.request(_checked([given], at), {})
        case str() if given.strip():
            return canonical.request([canonical.text_message("user", given)], {})
        case dict() | list() if given:
            return canonical.request([canonical.text_message("user", _as_text(given))], {})
        case _:
            raise _nothing(given, at)


def choices(said: Json, at: str) -> list[Json]:
    """Write the output of a call as the choices of a response."""
    match said:
        case {"choices": list(given)} if given:
            for path, choice in fields.objects(given, f"{at}.choices"):
                message = fields.want_object(choice, "message", path)
                canonical.messages([message], f"{path}message")
            return given
        case {"output": list(), "id": str(), **rest}:
            response: Obj = {"output": said["output"], "id": said["id"], **rest}
            return fields.want_array(openai_api.to_response(response, f"{at}."), "choices")
        case _:
            message = answer(said, at)
            return [
                canonical.choice(message, "tool_calls" if message.get("tool_calls") else "stop")
            ]


def answer(said: Json, at: str) -> Obj:
    """Write an output that is one answer as the assistant's message; of several the last."""
    match said:
        case dict() if _is_message(said):
            message: Obj = {**said, "role": "assistant", "content": said.get("content")}
            message.pop("type", None)
            canonical.messages([message], at)
            return message
        case [*_, dict(last)] if _is_message(last):
            return answer(last, f"{at}[-1]")
        case str() if said.strip():
            return canonical.text_message("assistant", said)
        case dict() | list() if said:
            return canonical.text_message("assistant", _as_text(said))
        case _:
            raise _nothing(said, at)


def _is_message(value: Obj) -> bool:
    return ("role" in value or "type" in value or "tool_calls" in value or len(value) == 1) and (
        "content" in value or "tool_calls" in value
    )


def _checked(messages: list[Json], at: str) -> list[Json]:
    return canonical.messages([_with_role(message) for message in messages], at)


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


def _nothing(value: Json, at: str) -> fields.WrongShapeError:
    if value in ("", [], {}) or value is None:
        return fields.WrongShapeError(f"`{at}` is empty, wants messages or text")
    return fields.wrong(at, value, "messages or text")
