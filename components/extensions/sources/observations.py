"""Convert the input and output of a model call as tracing tools log them."""

from components.collect.sources import anthropic_messages, canonical, fields, openai_api
from components.collect.sources.fields import Obj
from components.schema import Json

ROLES = {"human": "user", "ai": "assistant"}  # LangChain's message types and their OpenAI roles


def request(value: Json, at: str) -> Obj:
    """Return the input of a call as a request, or raise ``WrongShapeError``."""
    match value:
        case {"messages": list(messages), **parameters}:
            known: Obj = {**parameters, "messages": [_with_role(message) for message in messages]}
            converted = anthropic_messages.to_request(known, f"{at}.")
            asked = fields.require_array(converted, "messages", f"{at}.")
            return canonical.request(canonical.messages(asked, f"{at}.messages"), converted)
        case {"input": list() | str(), "model": _}:
            return openai_api.to_request(value, f"{at}.")
        case [dict(), *_]:
            return canonical.request(_checked(value, at), {})
        case dict() if _is_message(value):
            return canonical.request(_checked([value], at), {})
        case str() if value.strip():
            return canonical.request([canonical.text_message("user", value)], {})
        case dict() | list() if value:
            return canonical.request([canonical.text_message("user", fields.as_text(value))], {})
        case _:
            raise _unusable(value, at)


def choices(value: Json, at: str) -> list[Json]:
    """Return the output of a call as the choices of a response, or raise ``WrongShapeError``."""
    match value:
        # Plain ones stay as they are: another form would load them a second time.
        case dict() if anthropic_messages.is_response(value) and not anthropic_messages.is_plain(
            value
        ):
            return [anthropic_messages.to_choice(value, f"{at}.")]
        case {"choices": [_, *_]}:
            return canonical.choices(value, f"{at}.")
        case {"output": list(), "id": str(), **rest}:
            response: Obj = {"output": value["output"], "id": value["id"], **rest}
            return fields.require_array(openai_api.to_response(response, f"{at}."), "choices")
        case [{"object": "chat.completion.chunk"}, *_]:
            joined = fields.require_array(openai_api.assemble(value, at), "choices")
            return [
                {**choice, "finish_reason": choice.get("finish_reason") or canonical.CUT}
                for _, choice in fields.objects(joined, at)
            ]
        case _:
            return [canonical.answer(answer(value, at))]


def answer(value: Json, at: str) -> Obj:
    """Return an output (the last of several) as the assistant's message, or raise an error."""
    match value:
        case dict() if _is_message(value):
            message: Obj = {**value, "role": "assistant", "content": value.get("content")}
            message.pop("type", None)
            message = anthropic_messages.answer(_with_calls(message), f"{at}.")
            canonical.messages([message], at)
            return message
        case list() if anthropic_messages.is_content(value):
            return answer({"role": "assistant", "content": value}, at)
        case [*_, dict(last)] if _is_message(last):
            return answer(last, f"{at}[-1]")
        case str() if value.strip():
            return canonical.text_message("assistant", value)
        case dict() | list() if value:
            return canonical.text_message("assistant", fields.as_text(value))
        case _:
            raise _unusable(value, at)


def _is_message(value: Obj) -> bool:
    return ("role" in value or "type" in value or "tool_calls" in value or len(value) == 1) and (
        "content" in value or "tool_calls" in value
    )


def _checked(messages: list[Json], at: str) -> list[Json]:
    converted = anthropic_messages.to_messages([_with_role(message) for message in messages], at)
    return canonical.messages(converted, at)


def _with_role(message: Json) -> Json:
    match message:
        case {"type": str(kind), "content": content, **rest} if "role" not in rest:
            return _with_calls({"role": ROLES.get(kind, kind), "content": content, **rest})
        case dict():
            return _with_calls(message)
        case _:
            return message


def _with_calls(message: Obj) -> Obj:
    match message.get("tool_calls"):
        case [{"name": str(), "args": _}, *_] as calls:
            return {**message, "tool_calls": [_call(call) for call in calls]}
        case _:
            return message


def _call(call: Json) -> Json:
    match call:
        case {"name": str(name), "args": arguments, **rest}:
            return canonical.tool_call(name, arguments, rest.get("id"))
        case _:
            return call


def _unusable(value: Json, at: str) -> fields.WrongShapeError:
    if value in ("", [], {}) or value is None:
        return fields.WrongShapeError(f"`{at}` is empty, expected messages or text")
    return fields.wrong_type(at, value, "messages or text")
