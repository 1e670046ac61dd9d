"""What a rejection blames: read what was typed, and find the requests that it means.

What is found comes first in the next review. A request that the challenger was trained on is held
besides, until a person has judged it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow.parquet as pq

from components import warehouse
from components.scorecard import HOLDOUT
from components.warehouse import Connection

GUARD = "guard"
MOST = 50
"""Lines of blame; more are no longer looked at by anybody."""

_REQUEST = re.compile(r"[0-9a-f]{8,32}")
_PART = re.compile(r"([a-z]+)\s*=\s*(.+)")

Kind: TypeAlias = Literal["request", "tool", "client"]


@dataclass(frozen=True, slots=True)
class Blamed:
    """One thing to look at: a request by its example's id, or a part of the traffic by its name.

    ``is_learned`` tells that the challenger was trained on the request.
    """

    kind: Kind
    name: str
    is_learned: bool = False


@dataclass(frozen=True, slots=True)
class _Sample:
    """One request that was measured; ``differing`` names the metrics that the two differ by."""

    task: str
    example_id: str
    metrics: frozenset[str]
    differing: frozenset[str]
    slices: dict[str, str]


def find(con: Connection, workload: str, text: str, *, samples: Path, metric: str) -> list[Blamed]:
    """Find what the lines of ``text`` mean, each once.

    A line is the beginning of a request's id, as the report has it, or of an interaction's; a part
    of the traffic as ``tool=search``; or ``guard=abstention``. Of a part and of a guard it is the
    requests that the two models differ on.

    Args:
        con: The warehouse.
        workload: The workload.
        text: What was typed.
        samples: The evidence's file of all requests that were measured.
        metric: What was to get better.

    Raises:
        LookupError: A line means nothing, or more than one request.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > MOST:
        raise LookupError(f"{len(lines)} lines are blamed, wants {MOST} at most")
    measured = list(_read(samples)) if lines else []
    found = [one for line in lines for one in _mean(con, workload, line, measured, metric)]
    return list(dict.fromkeys(found))


def record(
    con: Connection, blamed: Iterable[Blamed], *, decision: int, workload: str, now: datetime
) -> None:
    """Keep what a decision blames, for the next review and the next curation."""
    rows: list[warehouse.Row] = [
        {**asdict(one), "decision": decision, "workload_id": workload, "blamed_at": now}
        for one in blamed
    ]
    warehouse.insert(con, "curated.blamed", rows)


def _mean(
    con: Connection, workload: str, line: str, measured: Sequence[_Sample], metric: str
) -> list[Blamed]:
    if _REQUEST.fullmatch(line):
        return [_request(con, workload, line, measured)]
    part = _PART.fullmatch(line)
    if part is None:
        raise LookupError(f"{line!r} is neither the beginning of an id nor NAME=VALUE")
    name, value = part[1], part[2].strip()
    if name == GUARD:
        return _guard(value, measured)
    return _part(name, value, measured, metric)


def _request(con: Connection, workload: str, beginning: str, measured: Sequence[_Sample]) -> Blamed:
    learned = con.execute(
        """
        select example_id, side = 'train' as is_learned
        from curated.examples
        where
            workload_id = $workload
            and (
                starts_with(example_id, $beginning)
                or len(list_filter(interaction_ids, lambda id: starts_with(id, $beginning))) > 0
            )
        """,
        {"workload": workload, "beginning": beginning},
    ).fetchall()
    found = {
        one.example_id: False
        for one in measured
        if one.task == HOLDOUT and one.example_id.startswith(beginning)
    }
    found |= {example_id: bool(is_learned) for example_id, is_learned in learned}
    if len(found) != 1:
        raise LookupError(f"{len(found)} requests have an id that begins with {beginning}")
    ((example_id, is_learned),) = found.items()
    return Blamed("request", example_id, is_learned)


def _guard(metric: str, measured: Sequence[_Sample]) -> list[Blamed]:
    if not any(metric in one.metrics for one in measured):
        raise LookupError(f"nothing was measured that is called {metric!r}")
    return [
        Blamed("request", one.example_id)
        for one in measured
        if one.task == HOLDOUT and metric in one.differing
    ]


def _part(name: str, value: str, measured: Sequence[_Sample], metric: str) -> list[Blamed]:
    inside = [one for one in measured if one.slices.get(name) == value]
    if not inside:
        raise LookupError(f"no request that was measured is of the part {name}={value!r}")
    asked = [
        Blamed("request", one.example_id)
        for one in inside
        if one.task == HOLDOUT and metric in one.differing
    ]
    if name == "client":
        return [Blamed("client", value), *asked]
    # Curation names the calls of an answer with a plus between them.
    return [Blamed("tool", value.replace(", ", " + ")), *asked] if name == "tool" else asked


def _read(path: Path) -> Iterator[_Sample]:
    columns = ["task", "example_id", "challenger_scores", "opponent_scores", "slices"]
    for row in pq.read_table(path, columns=columns).to_pylist():
        ours, theirs = dict(row["challenger_scores"]), dict(row["opponent_scores"] or ())
        both = ours.keys() & theirs.keys()
        yield _Sample(
            task=row["task"],
            example_id=row["example_id"],
            metrics=frozenset(ours),
            differing=frozenset(name for name in both if ours[name] != theirs[name]),
            slices=dict(row["slices"]),
        )
