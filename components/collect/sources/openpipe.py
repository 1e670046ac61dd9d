"""OpenPipe: exports of request logs, and of datasets.

A row of request logs holds ``input`` (the request), ``output`` (the response, or an error) and
``tags``. A row of a dataset holds ``messages`` up to the answer and its ``split``, perhaps a
``rejected_message``; it has no time and no id, like OpenAI's fine-tuning files.
"""

from collections.abc import Iterable, Iterator

from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import chat, openai_finetuning, shape
from components.collect.sources.shape import Obj
from components.schema import Json

NAME = "openpipe"

MILLISECONDS_FROM = 10**11
"""A time above this many is in milliseconds: as seconds it would lie in the year 5138."""


def claims(value: dict[str, Json]) -> bool:
    """Take rows of request logs and of datasets."""
    match value:
        case {"messages": list(), "split": str() | None}:
            return True
        case {"input": {"messages": list()}, "output": _}:
            return "request" not in value and "function_name" not in value
        case _:
            return False


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Read rows of either export."""
    return shape.each(rows, lambda row: _convert(row, defaults))


def _convert(row: Row, defaults: Defaults) -> Iterable[Found | Refused]:
    if "messages" in row.value:
        return _example(row, defaults)
    return [Found(row, "interactions", _logged(row.value, defaults))]


def _logged(value: Obj, defaults: Defaults) -> Obj:
    request = shape.want_object(value, "input")
    chat.messages(shape.want_array(request, "messages", "input."), "input.messages")
    response = shape.want_object(value, "output")
    if "choices" not in response and "error" in response:
        raise shape.wrong("output.error", response["error"], "a response with `choices`")
    choices = shape.want_array(response, "choices", "output.")
    for path, choice in shape.objects(choices, "output.choices"):
        chat.messages([shape.want_object(choice, "message", path)], f"{path}message")
    created = shape.want_number(response, "created", "output.")
    tags = shape.may_object(value, "tags")
    return chat.interaction(
        defaults,
        timestamp=created / 1000 if created > MILLISECONDS_FROM else created,
        request=request,
        response=response,
        workload_id=shape.may_text(tags, "workload_id", "tags."),
        user_id=shape.may_text(request, "user", "input."),
        metadata=tags,
    )


def _example(row: Row, defaults: Defaults) -> Iterable[Found | Refused]:
    request, answer = openai_finetuning.learned(row.value)
    if row.value.get("tool_choice") is not None:
        request["tool_choice"] = row.value["tool_choice"]
    response_id = f"op-{shape.digest(row.value)}"
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    interaction = chat.interaction(
        defaults,
        timestamp=chat.NO_TIME,
        request=request,
        response=chat.response([chat.choice(answer, reason)], response_id=response_id),
        metadata=shape.without_nulls(
            {**shape.may_object(row.value, "metadata"), "split": row.value.get("split")}
        ),
    )
    found: list[Found | Refused] = [Found(row, "interactions", interaction)]
    if row.value.get("rejected_message") is not None:
        rejected = shape.want_object(row.value, "rejected_message")
        chat.messages([rejected], "rejected_message")
        choice = chat.feedback(
            defaults,
            timestamp=chat.NO_TIME,
            actor_id=openai_finetuning.ACTOR,
            kind="choice",
            value={"chosen": answer, "rejected": rejected},
            target=("response_id", response_id),
        )
        found.append(Found(row, "feedback", choice))
    return found
