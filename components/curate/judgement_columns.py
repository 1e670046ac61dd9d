"""The judgements of rows as an Arrow table, and back: equal judgements come back."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Any, cast

import pyarrow as pa

from components.curate.near.request_columns import NearRequest
from components.curate.redaction.conversations import Rewritten
from components.curate.redaction.patterns import Kind
from components.curate.redaction.placeholders import Occurrence
from components.curate.redaction.surrogate_keys import Marked
from components.curate.row_clusters import RequestOrigin
from components.curate.row_judgement import RowJudgement
from components.curate.rules.screen import NOTHING_FOUND, Flag, Screened
from components.curate.split import Member
from components.store.arrow import EPOCH, ArrowTable, compute

MICROSECOND = timedelta(microseconds=1)
UNCHANGED = Rewritten()  # of a row without personal data; never modified, so rows share it

MARKED = ("messages", "tools", "acceptable", "answer", "logged_answer")
"""The texts of ``Marked``, in the order in which redaction writes them."""

TEXT, TEXTS, NUMBER = pa.string(), pa.list_(pa.string()), pa.int64()


def _texts(*names: str) -> list[tuple[str, object]]:
    return [(name, TEXT) for name in names]


FLAGS = pa.list_(pa.struct([*_texts("rule"), ("factor", pa.float64()), *_texts("mark")]))
COUNTS = pa.list_(pa.struct([*_texts("kind"), ("count", NUMBER)]))
# A placeholder's number is a text: a log can have one of any length.
OCCURRENCE = pa.struct([*_texts("kind", "key", "written", "number"), ("is_number", pa.bool_())])
SCREENED = pa.struct([*_texts("objection", "mark"), ("is_held", pa.bool_()), ("flags", FLAGS)])
REWRITTEN = pa.struct(
    [
        *_texts("messages", "tools", "acceptable"),
        ("values", COUNTS),
        ("replaced", COUNTS),
        *_texts("first_mark"),
        ("occurrences", pa.list_(OCCURRENCE)),
        ("marked", pa.struct(_texts(*MARKED))),
        ("context", TEXT),
    ]
)
SCHEMA = pa.schema(
    [
        *_texts("interaction_id", "objection", "mark"),
        ("screened", SCREENED),
        *_texts("label"),
        ("logged_us", NUMBER),
        *_texts("request_id", "redacted_request", "origin_tools", "origin_conversation"),
        *_texts("origin_user"),
        ("path", TEXTS),
        *_texts("context", "answered_before", "answered", "former_group"),
        ("tool_names", TEXTS),
        *_texts("answer", "logged"),
        ("turns", TEXTS),
        ("roles", TEXTS),
        *_texts("answer_name", "system", "tools", "tools_named", "form"),
        ("rewritten", REWRITTEN),
        *_texts("language", "conversation"),
    ]
)
"""Flat, as structs take five times as long to become records; the two that are null for most rows,
``screened`` and ``rewritten``, are structs. A row that was left out has the first four only. From
``request_id`` to ``former_group`` they are the fields of ``RequestOrigin`` in their order, from
``turns`` to ``form`` those of ``NearRequest``."""

REPEATED = frozenset(
    {
        *("label", "origin_tools", "origin_user", "context", "system", "tools", "tools_named"),
        *("form", "language"),
    }
)
"""Texts that many rows share, once in memory."""

EMPTY = pa.Table.from_batches([], SCHEMA)  # `empty_table` would import pandas: half a second

_ACCEPTED = 4  # columns before those of accepted rows


def table_of(judgements: Sequence[RowJudgement]) -> ArrowTable:
    """Return judgements of ``row_judgement.judge``, not yet compared with other rows."""
    columns = [*zip(*map(_row, judgements), strict=True)] or [()] * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return cast("ArrowTable", pa.table(arrays, schema=SCHEMA))


def _row(judged: RowJudgement) -> tuple[object, ...]:
    screened = None if judged.screened == NOTHING_FOUND else asdict(judged.screened)
    first = judged.interaction_id, judged.objection, judged.mark, screened
    member, origin, request, rewritten = (
        judged.member,
        judged.origin,
        judged.request,
        judged.rewritten,
    )
    if member is None or origin is None or request is None or rewritten is None:
        return *first, *(None,) * (len(SCHEMA) - _ACCEPTED)
    return (
        *first,
        member.label,
        (member.logged_at - EPOCH) // MICROSECOND,
        *_ORIGIN(origin),
        judged.tool_names,
        judged.answer,
        judged.logged,
        *_REQUEST(request),
        None if rewritten == UNCHANGED else _rewritten_row(rewritten),
        judged.language,
        judged.conversation,
    )


def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


ORIGIN = tuple(SCHEMA.names[6 : 6 + len(_fields(RequestOrigin))])
"""The columns of ``RequestOrigin``."""
REQUEST = tuple(SCHEMA.names[SCHEMA.names.index("turns") : SCHEMA.names.index("form") + 1])
"""The columns of ``NearRequest``."""

_ORIGIN, _REQUEST = attrgetter(*_fields(RequestOrigin)), attrgetter(*_fields(NearRequest))
_ANSWER_AT = len(_fields(RequestOrigin))
_REQUEST_AT = _ANSWER_AT + 3
_REWRITTEN_AT = _REQUEST_AT + len(_fields(NearRequest))


def _rewritten_row(rewritten: Rewritten) -> dict[str, object]:
    marked = rewritten.marked
    return {
        "messages": rewritten.messages,
        "tools": rewritten.tools,
        "acceptable": rewritten.acceptable,
        "values": _counts(rewritten.values),
        "replaced": _counts(rewritten.replaced),
        "first_mark": marked and str(marked.first_mark),
        "occurrences": marked and [_occurrence_row(each) for each in marked.occurrences],
        "marked": marked and marked.texts,
        "context": marked and marked.context,
    }


def _occurrence_row(occurrence: Occurrence) -> dict[str, object]:
    return {**asdict(occurrence), "number": str(occurrence.number)}


def _counts(counter: Counter[Kind]) -> list[dict[str, object]]:
    return [{"kind": kind.value, "count": count} for kind, count in counter.items()]


def judgements_of(table: ArrowTable) -> Iterator[RowJudgement]:
    """Yield the judgements that a table of ``SCHEMA`` holds."""
    columns = (_column(table, name) for name in SCHEMA.names)
    for interaction_id, objection, mark, screened, label, logged_us, *rest in zip(
        *columns, strict=True
    ):
        findings = NOTHING_FOUND if screened is None else _screened(screened)
        if objection is not None:
            yield RowJudgement(interaction_id, objection, findings, mark=mark)
            continue
        origin = RequestOrigin(*rest[:_ANSWER_AT])
        tool_names, answer, logged = rest[_ANSWER_AT:_REQUEST_AT]
        rewritten, language, conversation = rest[_REWRITTEN_AT:]
        yield RowJudgement(
            interaction_id,
            None,
            findings,
            Member((origin.request, origin.former_group), label, _time(logged_us)),
            origin,
            tool_names=tool_names,
            answer=answer,
            logged=logged,
            request=NearRequest(*rest[_REQUEST_AT:_REWRITTEN_AT]),
            rewritten=UNCHANGED if rewritten is None else _rewritten(rewritten),
            language=language,
            conversation=conversation,
        )


TURN = ("logged_us", "interaction_id", "language", "conversation", "rewritten")
"""The columns of a turn that redaction changed."""


def have_marks(table: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return which rows of a table with the column ``rewritten`` have marked texts."""
    return compute.is_valid(compute.struct_field(table.column("rewritten"), "first_mark"))


def marked_of(table: Any) -> Iterator[tuple[int, str, str | None, str | None, Marked]]:  # noqa: ANN401
    """Yield the values of rows with marks, of a table with the columns ``TURN``."""
    columns = (_column(table, name) for name in TURN[:-1])
    for *first, row in zip(*columns, table.column("rewritten").to_pylist(), strict=True):
        yield (*first, _marked(row))


def replacements_of(table: Any) -> Iterator[tuple[Kind, int, int]]:  # noqa: ANN401
    """Yield how many distinct values of each kind were replaced in each row, and how often."""
    for row in table.column("rewritten").drop_null().to_pylist():
        replaced = _counter(row["replaced"])
        for kind, distinct in _counter(row["values"]).items():
            yield kind, distinct, replaced[kind]


def screened_of(column: Any) -> list[Screened]:  # noqa: ANN401 - pyarrow has no types
    """Return the findings of the column ``screened``."""
    return [NOTHING_FOUND if row is None else _screened(row) for row in values_of(column)]


def _column(table: ArrowTable, name: str) -> Sequence[Any]:
    column: Any = table.column(name)
    if name not in REPEATED:
        return values_of(column)
    encoded = column.combine_chunks().dictionary_encode()
    texts = [*_texts_of(encoded.dictionary), None]
    return [texts[place] for place in encoded.indices.fill_null(-1).to_numpy().tolist()]


def values_of(column: Any) -> Sequence[Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a column's values, lists as tuples, null numbers as 0.

    ``to_pylist`` takes several times as long.
    """
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(whole.type):
        return _texts_of(whole)
    if pa.types.is_list(whole.type):
        texts, bounds = _texts_of(whole.values), whole.offsets.to_numpy().tolist()
        return [tuple(texts[start:end]) for start, end in pairwise(bounds)]
    if pa.types.is_integer(whole.type):
        return whole.fill_null(0).to_numpy().tolist()
    filled = iter(whole.drop_null().to_pylist())
    valid = whole.is_valid().to_numpy(zero_copy_only=False).tolist()
    return [next(filled) if is_valid else None for is_valid in valid]


def _texts_of(column: Any) -> list[str | None]:  # noqa: ANN401 - pyarrow has no types
    return column.to_numpy(zero_copy_only=False).tolist()


def _time(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _screened(row: dict[str, Any]) -> Screened:
    flags = tuple(Flag(**flag) for flag in row["flags"])
    return Screened(row["objection"], row["mark"], row["is_held"], flags)


def _rewritten(row: dict[str, Any]) -> Rewritten:
    return Rewritten(
        row["messages"],
        row["tools"],
        row["acceptable"],
        _counter(row["values"]),
        _counter(row["replaced"]),
        None if row["first_mark"] is None else _marked(row),
    )


def _marked(row: dict[str, Any]) -> Marked:
    occurrences = tuple(
        Occurrence(
            Kind(each["kind"]), each["key"], each["written"], int(each["number"]), each["is_number"]
        )
        for each in row["occurrences"]
    )
    texts = {name: text for name, text in row["marked"].items() if text is not None}
    return Marked(int(row["first_mark"]), occurrences, texts, row["context"])


def _counter(counts: list[dict[str, Any]]) -> Counter[Kind]:
    return Counter({Kind(row["kind"]): row["count"] for row in counts})
