"""OpenPipe: exports of request logs, and of datasets.

A row of request logs holds ``input`` (the request), ``output`` (the response, or an error) and
``tags``. A row of a dataset holds ``messages`` up to the answer and its ``split``, perhaps a
``rejected_message``; it has no time and no id, like OpenAI's fine-tuning files.
"""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, fields, openai_finetuning
from components.collect.sources.fields import Obj
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


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Read rows of either export."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    if "messages" in row.value:
        return _example(row, defaults)
    return [ParsedRecord(row, "interactions", _logged(row.value, defaults))]


def _logged(value: Obj, defaults: Defaults) -> Obj:
    request = fields.want_object(value, "input")
    canonical.messages(fields.want_array(request, "messages", "input."), "input.messages")
    response = fields.want_object(value, "output")
    if "choices" not in response and "error" in response:
        raise fields.wrong("output.error", response["error"], "a response with `choices`")
    choices = fields.want_array(response, "choices", "output.")
    for path, choice in fields.objects(choices, "output.choices"):
        canonical.messages([fields.want_object(choice, "message", path)], f"{path}message")
    created = fields.want_number(response, "created", "output.")
    tags = fields.may_object(value, "tags")
    return canonical.interaction(
        defaults,
        timestamp=created / 1000 if created > MILLISECONDS_FROM else created,
        request=request,
        response=response,
        workload_id=fields.may_text(tags, "workload_id", "tags."),
        user_id=fields.may_text(request, "user", "input."),
        metadata=tags,
    )


def _example(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    request, answer = openai_finetuning.learned(row.value)
    if row.value.get("tool_choice") is not None:
        request["tool_choice"] = row.value["tool_choice"]
    response_id = f"op-{fields.digest(row.value)}"
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    interaction = canonical.interaction(
        defaults,
        timestamp=canonical.NO_TIME,
        request=request,
        response=canonical.response([canonical.choice(answer, reason)], response_id=response_id),
        metadata=fields.without_nulls(
            {**fields.may_object(row.value, "metadata"), "split": row.value.get("split")}
        ),
    )
    found: list[ParsedRecord | RejectedRecord] = [ParsedRecord(row, "interactions", interaction)]
    if row.value.get("rejected_message") is not None:
        rejected = fields.want_object(row.value, "rejected_message")
        canonical.messages([rejected], "rejected_message")
        choice = canonical.feedback(
            defaults,
            timestamp=canonical.NO_TIME,
            actor_id=openai_finetuning.ACTOR,
            kind="choice",
            value={"chosen": answer, "rejected": rejected},
            target=("response_id", response_id),
        )
        found.append(ParsedRecord(row, "feedback", choice))
    return found
