"""Join the rows of a batch's input file with those of its output, by an id that each row has.

The output has each answer under the id of its request, in any order. Ids are only unique within a
batch: two requests, or two answers, with one id are not joined with anything, as nothing says which
belong together. No row has its batch's id, an answer's own ids are in no input file, and its model
is another name than the requested one (an alias, a deployment): so the requests of one batch and
the answers of another, if nothing else comes, can't be told from a pair. The reason of a row that
waits for others begins with the id; if it lacks the other one, it ends with the file that has it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from components.collect.source import ParsedRecord, RejectedRecord, SourceRecord, SourceRow
from components.collect.sources import fields
from components.collect.sources.fields import Obj, WrongShapeError

Convert: TypeAlias = Callable[[SourceRow, Obj, Obj], ParsedRecord]
"""Makes the record of an answer's row that has its request's in ``request``, and of both rows."""


@dataclass(slots=True)
class _Call:
    """The rows with one id, by their content: a repeated row counts once."""

    requests: dict[str, SourceRow] = field(default_factory=dict[str, SourceRow])
    answers: dict[str, SourceRow] = field(default_factory=dict[str, SourceRow])

    @property
    def rows(self) -> list[SourceRow]:
        return [*self.requests.values(), *self.answers.values()]


def join(
    rows: Iterable[SourceRow], key: str, is_answer: Callable[[Obj], bool], convert: Convert
) -> Iterator[SourceRecord]:
    """Yield the records of answers with their requests; reject what lacks the other.

    Args:
        rows: Those of all files of a batch, in any order.
        key: The key of the id.
        is_answer: Returns whether a row is an answer, or raises ``WrongShapeError`` if it is
            neither that nor a request.
        convert: Makes the record.
    """
    calls = defaultdict[str, _Call](_Call)
    for row in rows:
        try:
            fields.check_depth(row)
            call = calls[fields.require_text(row.value, key)]
            same_kind = call.answers if is_answer(row.value) else call.requests
            same_kind.setdefault(fields.digest(row.value), row)
        except WrongShapeError as error:
            yield RejectedRecord(row, str(error))
    for call_id, call in calls.items():
        try:
            yield _joined(call, f'the `{key}` "{call_id[: fields.MOST_SHOWN]}"', convert)
        except WrongShapeError as error:
            yield from (RejectedRecord(row, str(error)) for row in call.rows)


def _joined(call: _Call, name: str, convert: Convert) -> ParsedRecord:
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
    return convert(row, request.value, answer.value)
