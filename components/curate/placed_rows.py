"""The accepted rows of a curation with their sides and objections, and all rows' table for SQL."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.curate import judgement_columns
from components.curate.decontamination import AskedTexts
from components.curate.judged_rows import JudgedPart, JudgedRows
from components.curate.judgement_columns import FLAGS
from components.curate.row_clusters import Relations
from components.curate.rules.screen import NOTHING_FOUND, Flag
from components.curate.split import SIDES, Members, Placements
from components.curate.text_codes import MISSING, Ints
from components.store.arrow import compute

AHEAD = "future_timestamp"
NEAR = "near_"


def near_objection(side: int) -> str:
    """Return the objection to a row that is tied to one on a stricter side, by its number."""
    return f"{NEAR}{SIDES[side]}"


@dataclass(frozen=True, slots=True)
class PlacedRows:
    """The accepted rows, by number, after they were compared with each other.

    The clusters of ``relations``, ``twins`` and ``equals`` are groups, each named by the number of
    its first row: near-duplicates, those of them that expect the same kind of answer, and those of
    these with equal words. ``objections`` are those raised after the rules, ``marks`` their details
    by row. ``asked`` are the users' texts.
    """

    judged: JudgedRows
    members: Members
    relations: Relations
    placements: Placements
    twins: Ints
    equals: Ints
    objections: Sequence[str | None]
    marks: Mapping[int, str]
    asked: AskedTexts

    def with_objections(self, rows: AbstractSet[int], objection: str) -> "PlacedRows":
        """Return the rows with an objection to some of them."""
        objections = [
            objection if row in rows else raised for row, raised in enumerate(self.objections)
        ]
        return replace(self, objections=objections)

    def write(self, path: Path, ahead: AbstractSet[str]) -> None:
        """Write the table ``judgements``, one row per interaction, as a Parquet file.

        ``ahead`` are the interactions logged later than loaded.
        """
        with pq.ParquetWriter(path, SCHEMA, compression="lz4", use_dictionary=REPEATED) as writer:
            raised = pa.array(self.objections, pa.string()), self._marks()
            for part, numbers in zip(self.judged.parts, self.judged.numbers, strict=True):
                objections, marks = (_taken(texts, numbers) for texts in raised)
                columns = self._columns(part, numbers, objections, marks, ahead)
                arrays = [columns[field.name].cast(field.type) for field in SCHEMA]
                writer.write_table(pa.table(arrays, schema=SCHEMA))

    def _columns(
        self,
        part: JudgedPart,
        numbers: Ints,
        objections: Any,  # noqa: ANN401 - pyarrow has no types
        marks: Any,  # noqa: ANN401 - pyarrow has no types
        ahead: AbstractSet[str],
    ) -> dict[str, Any]:
        table = part.read(*READ)
        own = {name: table.column(name).combine_chunks() for name in table.schema.names}
        names, ids, placements = self.members.names, self.judged.ids, self.placements
        rewritten = own["rewritten"]
        return {
            **{name: own[name] for name in ("interaction_id", "answer", "language", "label")},
            "workload_id": pa.repeat(self.judged.workload_id, len(table)),
            "objection": compute.coalesce(own["objection"], objections),
            "logged_answer": own["logged"],
            "answer_name": own["answer_name"],
            "request_key": own["redacted_request"],
            "twin_id": _codes(_of(self.twins, numbers)),
            "equal_id": _codes(_of(self.equals, numbers)),
            "cluster_id": _taken(ids, _of(self.relations.clusters, numbers)),
            "side": _taken(pa.array(SIDES), _of(placements.sides, numbers)),
            "stratum": _taken(
                pa.array(placements.stratum_names, pa.string()), _of(placements.strata, numbers)
            ),
            "draw_id": names.take(_of(placements.draws, numbers)),
            "ties": self._ties(numbers),
            # Null for a row that a rule objected to; such a row offers none.
            "tool_names": pa.ListArray.from_arrays(
                own["tool_names"].offsets, own["tool_names"].values
            ),
            **{name: compute.struct_field(rewritten, name) for name in REWRITTEN},
            **_screened(own, marks, ahead),
        }

    def _ties(self, numbers: Ints) -> Any:  # noqa: ANN401 - pyarrow has no types
        is_accepted = numbers != MISSING
        lists = self.members.ties.take(numbers[is_accepted])
        sizes = np.zeros(len(numbers), np.int32)
        sizes[is_accepted] = np.diff(lists.bounds)
        bounds = pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)]))
        texts = self.members.names.take(lists.codes).cast(pa.string())
        return pa.ListArray.from_arrays(bounds, texts, mask=pa.array(~is_accepted))

    def _marks(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        places = np.full(len(self.judged.ids), MISSING)
        places[[*self.marks]] = np.arange(len(self.marks))
        return _taken(pa.array([*self.marks.values()], pa.string()), places)


def _of(values: Ints, numbers: Ints) -> Ints:
    """Return the rows' values, ``MISSING`` for rows without a number."""
    if not len(values):
        return np.full(len(numbers), MISSING)
    return np.where(numbers == MISSING, MISSING, values[numbers])


def _taken(texts: Any, places: Ints) -> Any:  # noqa: ANN401 - pyarrow has no types
    return texts.take(_codes(places))


def _codes(places: Ints) -> Any:  # noqa: ANN401 - pyarrow has no types
    return pa.array(places, pa.int64(), mask=places == MISSING)


def _screened(
    own: Mapping[str, Any],
    marks: Any,  # noqa: ANN401 - pyarrow has no types
    ahead: AbstractSet[str],
) -> dict[str, Any]:
    """Return the columns of what the rules found, and ``marks`` besides."""
    is_ahead = compute.is_in(own["interaction_id"], value_set=pa.array([*ahead], pa.string()))
    has_findings = compute.or_(own["screened"].is_valid(), is_ahead)
    screened = judgement_columns.screened_of(own["screened"].filter(has_findings))
    for place in np.flatnonzero(is_ahead.filter(has_findings)).tolist():
        flags = (*screened[place].flags, Flag(AHEAD, 1.0, _AHEAD_MARK))
        screened[place] = replace(screened[place], flags=flags)
    # Most rows have none: Python sees only the others.
    places = np.full(len(has_findings), len(screened))
    places[has_findings.to_numpy(zero_copy_only=False)] = np.arange(len(screened))
    screened.append(NOTHING_FOUND)

    def column(values: Iterable[object], kind: object) -> Any:  # noqa: ANN401
        return pa.array([*values], kind).take(pa.array(places))

    of_rules = column((findings.mark for findings in screened), pa.string())
    is_marked = compute.fill_null(compute.not_equal(own["mark"], ""), False)
    return {
        "mark": compute.coalesce(marks, compute.if_else(is_marked, own["mark"], of_rules)),
        "is_held": column((findings.is_held for findings in screened), pa.bool_()),
        "flags": column(
            ([asdict(flag) for flag in findings.flags] for findings in screened), FLAGS
        ),
        "weight": column((findings.weight for findings in screened), pa.float64()),
    }


_AHEAD_MARK = "the log says a time after it was loaded; it counts as of when it was loaded"

REWRITTEN = ("messages", "tools", "acceptable")

READ = (
    *("interaction_id", "objection", "mark", "screened", "label", "tool_names", "answer"),
    *(
        "logged",
        "answer_name",
        "language",
        "redacted_request",
        *(f"rewritten.{name}" for name in REWRITTEN),
    ),
)
"""The columns of a judgement that SQL reads."""

REPEATED: Any = ["workload_id", "objection", "language", "label", "side", "stratum"]
"""Texts that many rows share, written once in many rows."""

_TEXTS = (
    *("interaction_id", "workload_id", "objection", "mark", "answer", "language"),
    *(
        "logged_answer",
        "answer_name",
        "request_key",
        "label",
        "cluster_id",
        "side",
    ),
    *("stratum", "draw_id", *REWRITTEN),
)
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        # Numbers of groups, which SQL compares several times: an id takes twice as long.
        *((name, pa.int64()) for name in ("twin_id", "equal_id")),
        ("ties", pa.list_(pa.string())),
        ("tool_names", pa.list_(pa.string())),
        ("is_held", pa.bool_()),
        ("flags", FLAGS),
        ("weight", pa.float64()),
    ]
)
"""Of the table ``judgements``; a row that a rule objected to has no side and no texts."""
