"""OpenPipe: exports of request logs, and of datasets.

A row of request logs has ``input`` (the request), ``output`` (the response, or an error) and
``tags``. A row of a dataset has ``messages`` up to the answer, its ``split``, and perhaps a
``rejected_message``; it has no time and no id, like OpenAI's fine-tuning files.
"""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, fields, openai_finetuning
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "openpipe"

MILLISECONDS_FROM = 10**11  # larger times are in milliseconds: this many seconds are the year 5138


def claims(value: dict[str, Json]) -> bool:
    """Claim rows of request logs and of datasets."""
    match value:
        case {"messages": list(), "split": str() | None}:
            return True
        case {"input": {"messages": list()}, "output": _}:
            return "request" not in value and "function_name" not in value
        case _:
            return False


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Yield the records of either export's rows."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    if "messages" in row.value:
        return _example(row, defaults)
    return [ParsedRecord(row, "interactions", _logged(row.value, defaults))]


def _logged(value: Obj, defaults: Defaults) -> Obj:
    request = fields.require_object(value, "input")
    canonical.messages(fields.require_array(request, "messages", "input."), "input.messages")
    response = fields.require_object(value, "output")
    if "choices" not in response and "error" in response:
        raise fields.wrong_type("output.error", response["error"], "a response with `choices`")
    choices = fields.require_array(response, "choices", "output.")
    for path, choice in fields.objects(choices, "output.choices"):
        canonical.messages([fields.require_object(choice, "message", path)], f"{path}message")
    created = fields.require_number(response, "created", "output.")
    tags = fields.optional_object(value, "tags")
    return canonical.interaction(
        defaults,
        timestamp=created / 1000 if created > MILLISECONDS_FROM else created,
        request=request,
        response=response,
        workload_id=fields.optional_text(tags, "workload_id", "tags."),
        user_id=fields.optional_text(request, "user", "input."),
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
            {**fields.optional_object(row.value, "metadata"), "split": row.value.get("split")}
        ),
    )
    records: list[ParsedRecord | RejectedRecord] = [ParsedRecord(row, "interactions", interaction)]
    if row.value.get("rejected_message") is not None:
        rejected = fields.require_object(row.value, "rejected_message")
        canonical.messages([rejected], "rejected_message")
        choice = canonical.feedback(
            defaults,
            timestamp=canonical.NO_TIME,
            actor_id=openai_finetuning.ACTOR,
            kind="choice",
            value={"chosen": answer, "rejected": rejected},
            target=("response_id", response_id),
        )
        records.append(ParsedRecord(row, "feedback", choice))
    return records
