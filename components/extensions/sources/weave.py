"""W&B Weave: calls of models that its integrations traced, as its pages or its API export them.

A call has the arguments of the client's method in ``inputs`` and what it returned in ``output``, of
OpenAI's chat completions or Responses API, or of Anthropic's Messages API. Of a call within another
one, such as of OpenAI's client within LiteLLM, the inner one counts. Reactions and notes are
feedback.
"""

import re
from collections.abc import Iterable, Iterator

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.fields import Obj, WrongShapeError
from components.extensions.sources.braintrust import CONVERSATIONS, PARAMETERS
from components.schema import Json

NAME = "weave"

CALL = {"id", "op_name", "trace_id", "started_at", "inputs"}

OPERATION = re.compile(r"(?:^|/)([^/:]+)(?::[^/:]*)?$")  # within a reference: its name, its version
MODELS = re.compile(
    r"openai\.(beta\.)?chat\.completions\.(create|parse)|openai\.responses\.(create|parse)"
    r"|anthropic\.(beta\.)?(Async)?Messages\.(create|stream)|litellm\.a?completion"
    r"|groq\..*completions\.create|cerebras\..*completions\.create"
    r"|mistralai\..*chat\.complete(_async)?|huggingface_hub\..*chat_completion"
)
"""The methods of clients, as Weave's integrations name them."""

OUTER = "the call made another one of a model, expected the inner one"

KIND = "llm"  # of operations that an application marks so

SENT = {*PARAMETERS, "messages", "input", "system", "user", "metadata"}

REFERENCES = ("weave:///", "weave-trace-internal:///")
OBJECT = {"_type", "_class_name", "_bases"}  # what Weave adds to an object of Python's
FILE = "CustomWeaveType"

REACTION, NOTE = "wandb.reaction.1", "wandb.note.1"
THUMBS = {"\N{THUMBS UP SIGN}": "up", "\N{THUMBS DOWN SIGN}": "down"}


def claims(value: dict[str, Json]) -> bool:
    """Claim calls."""
    return value.keys() >= CALL and isinstance(value["inputs"], dict)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interactions of calls of models, and their feedback."""
    calls, outer = list[SourceRow](), set[str | None]()
    for row in rows:
        try:
            fields.check_depth(row)
            _require_model(row.value)
            outer.add(fields.optional_text(row.value, "parent_id"))
            calls.append(row)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
    for row in calls:
        if row.value["id"] in outer:
            yield RejectedRecord(row, OUTER)
            continue
        try:
            interaction = _interaction(row.value, defaults)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
            continue
        yield ParsedRecord(row, "interactions", interaction)
        yield from _feedback(row, interaction, defaults)


def _require_model(value: Obj) -> None:
    fields.require_text(value, "id")
    operation = fields.require_text(value, "op_name")
    match = OPERATION.search(operation)
    attributes = fields.optional_object(value, "attributes")
    marked = fields.optional_object(attributes, "weave", "attributes.").get("kind") == KIND
    if not (marked or (match and MODELS.fullmatch(match[1]))):
        raise fields.unknown_value("op_name", operation, "the call of a model")


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    if value.get("deleted_at") is not None:
        raise fields.wrong_type("deleted_at", value["deleted_at"], "a call that is not deleted")
    error, output = value.get("exception"), _plain(value.get("output"), "output")
    if output is None:
        reason = f": {fields.as_text(error)[: fields.MAX_SHOWN]}" if error else ""
        raise fields.missing("output", f"an answer{reason}")
    inputs = fields.require_object(value, "inputs")
    sent = {key: _plain(each, f"inputs.{key}") for key, each in inputs.items() if key in SENT}
    answered = _ended(output)
    request, response, beside = openai_logs.exchange(
        fields.without_nulls(sent), "inputs.", answered
    )
    attributes = fields.optional_object(value, "attributes")
    conversations = [value.get("thread_id"), *(attributes.get(key) for key in CONVERSATIONS)]
    known: Obj = {key: each for key, each in attributes.items() if key != "weave"}
    return canonical.interaction(
        defaults,
        timestamp=value.get("started_at"),
        request=request,
        response={**response, "id": response.get("id") or value["id"]},
        workload_id=fields.optional_text(attributes, "workload_id", "attributes."),
        conversation_id=next(filter(None, conversations), None),
        user_id=fields.optional_text(attributes, "user_id", "attributes.")
        or fields.optional_text(request, "user", "inputs."),
        trace_id=fields.optional_text(value, "trace_id"),
        duration_ms=canonical.duration_ms(value, "started_at", "ended_at"),
        metadata=known,
        **(beside | ({"finish": canonical.CUT} if error else {})),
    )


def _ended(output: Json) -> Json:
    """Return an answer with the null that a choice without a reason to stop has; Weave drops it."""
    match output:
        case {"choices": [dict(), *_] as choices}:
            named: list[Json] = [
                {"finish_reason": None, **each} for _, each in fields.objects(choices, "output")
            ]
            return {**output, "choices": named}
        case _:
            return output


def _plain(value: Json, at: str) -> Json:
    """Return a value without what Weave adds to objects; raise an error if a part is elsewhere."""
    match value:
        case str() if value.startswith(REFERENCES):
            raise fields.unknown_value(at, value, "the value; the export has a reference to it")
        case {"_type": kind} if kind == FILE:
            raise fields.unknown_value(f"{at}._type", FILE, "the value; the export has no file")
        case dict():
            own = OBJECT if value.keys() >= OBJECT else set[str]()
            return {
                key: _plain(each, f"{at}.{key}") for key, each in value.items() if key not in own
            }
        case list():
            return [_plain(each, f"{at}[{index}]") for index, each in enumerate(value)]
        case _:
            return value


def _feedback(row: SourceRow, interaction: Obj, defaults: Defaults) -> Iterator[SourceRecord]:
    summary = row.value.get("summary")
    weave = summary.get("weave") if isinstance(summary, dict) else None
    listed = weave.get("feedback") if isinstance(weave, dict) else None
    response = fields.require_object(interaction, "response")
    for index, reaction in enumerate(listed if isinstance(listed, list) else []):
        at = f"summary.weave.feedback[{index}]"
        try:
            holder = fields.require_object({at: reaction}, at)
            kind, signal = _signal(holder, f"{at}.")
            record = canonical.feedback(
                defaults,
                timestamp=holder.get("created_at"),
                actor_id=fields.optional_text(holder, "wb_user_id", f"{at}.")
                or fields.optional_text(holder, "creator", f"{at}.")
                or "unknown",
                kind=kind,
                value=signal,
                target=("response_id", fields.require_text(response, "id")),
            )
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
            continue
        named = {key: interaction[key] for key in ("workload_id", "client_id")}
        yield ParsedRecord(row, "feedback", record | named)


def _signal(reaction: Obj, at: str) -> tuple[str, Json]:
    payload = fields.optional_object(reaction, "payload", at)
    match fields.require_text(reaction, "feedback_type", at):
        case kind if kind == REACTION:
            emoji = fields.require_text(payload, "emoji", f"{at}payload.")
            if vote := THUMBS.get(emoji[:1]):
                return "thumb", vote
            return "outcome", {"name": "reaction", "value": emoji}
        case kind if kind == NOTE:
            return "comment", fields.require_text(payload, "note", f"{at}payload.")
        case other:
            raise fields.unknown_value(f"{at}feedback_type", other, f"{REACTION} or {NOTE}")
