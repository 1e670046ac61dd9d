"""The requests that a rejection points at."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow.parquet as pq

from components.scorecard import HOLDOUT
from components.store import warehouse
from components.store.warehouse import Connection

GUARD = "guard"
MOST = 50  # maximum lines of blame; nobody reviews more

_REQUEST = re.compile(r"[0-9a-f]{8,32}")
_PART = re.compile(r"([a-z]+)\s*=\s*(.+)")

Kind: TypeAlias = Literal["request", "tool", "client"]


@dataclass(frozen=True, slots=True)
class Blamed:
    """A blamed request by its example's id, or a part of the traffic by its name.

    ``is_learned``: the challenger was trained on the request.
    """

    kind: Kind
    name: str
    is_learned: bool = False


@dataclass(frozen=True, slots=True)
class _Sample:
    """A measured request; ``differing`` names the metrics in which the two models differ."""

    task: str
    example_id: str
    metrics: frozenset[str]
    differing: frozenset[str]
    slices: dict[str, str]


def find_blamed(
    con: Connection, workload: str, text: str, *, samples: Path, metric: str
) -> list[Blamed]:
    """Resolve the lines of ``text``, without duplicates.

    A line is a prefix of a request's id in the report, or of an interaction's; a part of the
    traffic as ``tool=search``; or ``guard=abstention``. A part or a guard means the requests of
    the file ``samples`` on which the two models differ (of a part: by the target ``metric``).

    Raises:
        LookupError: A line matches nothing, or more than one request.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > MOST:
        raise LookupError(f"{len(lines)} lines are blamed, expected {MOST} at most")
    measured = list(_read_samples(samples)) if lines else []
    blamed = [b for line in lines for b in _blamed(con, workload, line, measured, metric)]
    return list(dict.fromkeys(blamed))


def record_blamed(
    con: Connection, blamed: Iterable[Blamed], *, decision: int, workload: str, now: datetime
) -> None:
    """Record what a decision blames, for the next review and the next curation."""
    common = {"decision": decision, "workload_id": workload, "blamed_at": now}
    warehouse.insert(con, "curated.blamed", [{**asdict(item), **common} for item in blamed])


def _blamed(
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
    matches = {
        sample.example_id: False
        for sample in measured
        if sample.task == HOLDOUT and sample.example_id.startswith(beginning)
    }
    matches |= {example_id: bool(is_learned) for example_id, is_learned in learned}
    if len(matches) != 1:
        raise LookupError(f"{len(matches)} requests have an id that begins with {beginning}")
    ((example_id, is_learned),) = matches.items()
    return Blamed("request", example_id, is_learned)


def _guard(metric: str, measured: Sequence[_Sample]) -> list[Blamed]:
    if not any(metric in sample.metrics for sample in measured):
        raise LookupError(f"nothing was measured that is called {metric!r}")
    return _differing(measured, metric)


def _differing(measured: Sequence[_Sample], metric: str) -> list[Blamed]:
    return [
        Blamed("request", sample.example_id)
        for sample in measured
        if sample.task == HOLDOUT and metric in sample.differing
    ]


def _part(name: str, value: str, measured: Sequence[_Sample], metric: str) -> list[Blamed]:
    inside = [sample for sample in measured if sample.slices.get(name) == value]
    if not inside:
        raise LookupError(f"no request that was measured is of the part {name}={value!r}")
    requests = _differing(inside, metric)
    if name == "client":
        return [Blamed("client", value), *requests]
    # Curation joins the calls of an answer with a plus.
    return [Blamed("tool", value.replace(", ", " + ")), *requests] if name == "tool" else requests


def _read_samples(path: Path) -> Iterator[_Sample]:
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
