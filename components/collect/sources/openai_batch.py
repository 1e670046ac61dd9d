"""OpenAI's Batch API: the requests of a batch's input file joined with its output and error files.

Anthropic's Message Batches have the request in ``params`` and the answer in ``result``, and no
time.
"""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import batched_calls, canonical, fields, openai_logs
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "openai_batch"
JOINED_BY = "custom_id"

REQUEST = {"custom_id", "method", "url", "body"}
ANSWER = {"custom_id", "response", "error"}
ANTHROPIC_REQUEST = {"custom_id", "params"}
ANTHROPIC_ANSWER = {"custom_id", "result"}

OK = 200
SUCCEEDED = "succeeded"


def claims(value: dict[str, Json]) -> bool:
    """Claim the rows of a batch's files."""
    known = (REQUEST, ANSWER, ANTHROPIC_REQUEST, ANTHROPIC_ANSWER)
    return any(value.keys() >= keys for keys in known)


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interactions of answers with their requests; reject what lacks the other."""

    def interaction(row: SourceRow, request: Obj, answer: Obj) -> ParsedRecord:
        exchange: Obj = row.value
        if "result" in answer:
            result = fields.require_object(answer, "result")
            asked: Json = {"body": _asked(request)}
            exchange = {
                "created_at": canonical.NO_TIME,
                "request": asked,
                "response": result["message"],
            }
        return ParsedRecord(row, "interactions", openai_logs.logged(exchange, defaults))

    return batched_calls.join(rows, JOINED_BY, _is_answer, interaction)


def _is_answer(value: Obj) -> bool:
    """Return whether a row is an answer, not a request; raise ``WrongShapeError`` if it is none."""
    if value.keys() >= ANSWER or value.keys() >= ANTHROPIC_ANSWER:
        _check_success(value)
        return True
    _asked(value)
    return False


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
