"""OpenPipe: exports of request logs, and of datasets.

A row of request logs has ``input`` (the request), ``output`` (the response, or an error) and
``tags``. A row of a dataset has ``messages`` up to the answer, its ``split``, and perhaps a
``rejected_message``; it has no time and no id, like OpenAI's fine-tuning files.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.extensions.sources import openai_finetuning
from components.schema import Json

NAME = "openpipe"


def claims(value: dict[str, Json]) -> bool:
    """Claim rows of request logs and of datasets."""
    match value:
        case {"messages": list(), "split": str() | None}:
            return True
        case {"input": {"messages": list()}, "output": _}:
            return "request" not in value and "function_name" not in value
        case _:
            return False


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the records of a row of either export."""
    if "messages" in row.value:
        yield from _example(row, defaults)
    else:
        yield ParsedRecord(row, "interactions", _logged(row.value, defaults))


def _logged(value: Obj, defaults: Defaults) -> Obj:
    request = fields.require_object(value, "input")
    canonical.messages(fields.require_array(request, "messages", "input."), "input.messages")
    response = fields.require_object(value, "output")
    if "choices" not in response and "error" in response:
        raise fields.wrong_type("output.error", response["error"], "a response with `choices`")
    canonical.choices(response, "output.")
    created = fields.require_number(response, "created", "output.")
    tags = fields.optional_object(value, "tags")
    return canonical.interaction(
        defaults,
        timestamp=created / 1000 if created > canonical.NO_SECONDS_FROM else created,
        request=request,
        response=response,
        workload_id=fields.optional_text(tags, "workload_id", "tags."),
        user_id=fields.optional_text(request, "user", "input."),
        metadata=tags,
    )


def _example(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    request, answer = openai_finetuning.learned(row.value)
    if row.value.get("tool_choice") is not None:
        request["tool_choice"] = row.value["tool_choice"]
    response_id = f"op-{fields.digest(row.value)}"
    metadata = fields.optional_object(row.value, "metadata") | {"split": row.value.get("split")}
    interaction = openai_finetuning.answered(
        defaults, request, answer, response_id, fields.without_nulls(metadata)
    )
    yield ParsedRecord(row, "interactions", interaction)
    if row.value.get("rejected_message") is not None:
        rejected = fields.require_object(row.value, "rejected_message")
        canonical.messages([rejected], "rejected_message")
        choice: Json = {"chosen": answer, "rejected": rejected}
        feedback = openai_finetuning.annotation(defaults, "choice", choice, response_id)
        yield ParsedRecord(row, "feedback", feedback)
