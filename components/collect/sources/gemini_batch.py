"""Gemini's Batch API: the requests of a batch's input file joined with those of its output file.

A row has its id in ``key``, and no time. Requests that were sent without keys can't be joined: only
the order of the file says which answer is whose.
"""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import batched_calls, canonical, fields, gemini_api, openai_logs
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "gemini_batch"
JOINED_BY = "key"

CREATED = ("createTime", "create_time")


def claims(value: dict[str, Json]) -> bool:
    """Claim the rows of a batch's files."""
    match value:
        case {"key": str(), "request": dict(request)}:
            return "response" not in value and gemini_api.is_request(request)
        case {"key": str(), "response": dict(response)}:
            return "request" not in value and gemini_api.is_response(response)
        case {"key": str(), "error": {"code": _}}:
            return "request" not in value
        case _:
            return False


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interactions of answers with their requests; reject what lacks the other."""

    def interaction(row: SourceRow, request: Obj, answer: Obj) -> ParsedRecord:
        response = fields.require_object(answer, "response")
        times = (response[key] for key in CREATED if response.get(key) is not None)
        exchange: Obj = {
            "created_at": next(times, canonical.NO_TIME),
            "request": request["request"],
            "response": response,
        }
        return ParsedRecord(row, "interactions", openai_logs.logged(exchange, defaults))

    return batched_calls.join(rows, JOINED_BY, _is_answer, interaction)


def _is_answer(value: Obj) -> bool:
    """Return whether a row is an answer, not a request; raise ``WrongShapeError`` if it is none."""
    if value.get("error") is not None:
        raise fields.wrong_type("error", value["error"], "a response")
    if "request" in value:
        fields.require_object(value, "request")
        return False
    fields.require_object(value, "response")
    return True
