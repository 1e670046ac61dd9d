"""OpenAI's Batch API: the requests of a batch's input file joined with its output and error files.

Anthropic's Message Batches have the request in ``params`` and the answer in ``result``, and no
time.

The output has each answer under the ``custom_id`` of its request, in any order. Ids are only unique
within a batch: two requests, or two answers, with one id are not joined with anything, as nothing
says which belong together. No row has its batch's id, an answer's ``id`` and ``request_id`` are in
no input file, and its model is another name than the requested one (an alias, a deployment): so the
requests of one batch and the answers of another, if nothing else comes, can't be told from a pair.
The reason of a row that waits for others begins with the id; if it lacks the other one, it ends
with the file that has it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.fields import Obj, WrongShapeError
from components.schema import Json

NAME = "openai_batch"
JOINED_BY = "custom_id"

REQUEST = {"custom_id", "method", "url", "body"}
ANSWER = {"custom_id", "response", "error"}
ANTHROPIC_REQUEST = {"custom_id", "params"}
ANTHROPIC_ANSWER = {"custom_id", "result"}

OK = 200
SUCCEEDED = "succeeded"


@dataclass(slots=True)
class _Call:
    """The rows with one ``custom_id``, by their content: a repeated row counts once."""

    requests: dict[str, SourceRow] = field(default_factory=dict[str, SourceRow])
    answers: dict[str, SourceRow] = field(default_factory=dict[str, SourceRow])

    @property
    def rows(self) -> list[SourceRow]:
        return [*self.requests.values(), *self.answers.values()]


def claims(value: dict[str, Json]) -> bool:
    """Claim the rows of a batch's files."""
    known = (REQUEST, ANSWER, ANTHROPIC_REQUEST, ANTHROPIC_ANSWER)
    return any(value.keys() >= keys for keys in known)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interactions of answers with their requests; reject what lacks the other."""
    calls = defaultdict[str, _Call](_Call)
    for row in rows:
        try:
            fields.check_depth(row)
            call = calls[fields.require_text(row.value, JOINED_BY)]
            if _is_answer(row.value):
                _check_success(row.value)
                call.answers.setdefault(fields.digest(row.value), row)
            else:
                _asked(row.value)
                call.requests.setdefault(fields.digest(row.value), row)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
    for custom_id, call in calls.items():
        try:
            yield _joined(call, custom_id, defaults)
        except WrongShapeError as error:
            yield from (RejectedRecord(row, str(error)) for row in call.rows)


def _is_answer(value: Obj) -> bool:
    return value.keys() >= ANSWER or value.keys() >= ANTHROPIC_ANSWER


def _asked(value: Obj) -> Obj:
    return fields.require_object(value, "params" if "params" in value else "body")


def _check_success(answer: Obj) -> None:
    if "result" in answer:
        result = fields.require_object(answer, "result")
        if (kind := fields.require_text(result, "type", "result.")) != SUCCEEDED:
            expected = f"{SUCCEEDED}: the call has no answer"
            raise fields.unknown_value("result.type", kind, expected)
        fields.require_object(result, "message", "result.")
        return
    if answer["error"] is not None:
        raise fields.wrong_type("error", answer["error"], "a response")
    status = fields.require_object(answer, "response").get("status_code")
    if status not in (None, OK):
        expected = f"{OK}: the call has no answer"
        raise fields.unknown_value("response.status_code", fields.as_json(status), expected)


def _joined(call: _Call, custom_id: str, defaults: Defaults) -> ParsedRecord:
    name = f'the `{JOINED_BY}` "{custom_id[: fields.MOST_SHOWN]}"'
    for rows, kind in ((call.requests, "requests"), (call.answers, "answers")):
        if len(rows) > 1:
            raise WrongShapeError(f"{name} has {len(rows)} different {kind}, expected one")
    if not call.answers:
        raise WrongShapeError(f"{name} has a request and no answer, expected the output file")
    if not call.requests:
        raise WrongShapeError(f"{name} has an answer and no request, expected the input file")
    (request,), (answer,) = call.requests.values(), call.answers.values()
    row = fields.part(answer, {**answer.value, "request": request.value})
    fields.check_depth(row)
    exchange: Obj = row.value
    if "result" in answer.value:
        result = fields.require_object(answer.value, "result")
        asked: Json = {"body": _asked(request.value)}
        exchange = {
            "created_at": canonical.NO_TIME,
            "request": asked,
            "response": result["message"],
        }
    return ParsedRecord(row, "interactions", openai_logs.logged(exchange, defaults))
