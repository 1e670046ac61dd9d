"""Ties and places rows that are records, by the columns of curation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from components.curate import row_clusters, split, text_codes
from components.curate.row_clusters import Origins, Relations, RequestOrigin
from components.curate.settings import SplitBy
from components.curate.split import NEVER, SIDES, Members, SettledSides, Shares, Side
from components.curate.text_codes import MISSING, CodeLists, Ints, TextCodes
from components.store.arrow import EPOCH


@dataclass(frozen=True)
class Row:
    """A row to place, with the texts of what ties it to others."""

    ties: tuple[str, ...]
    label: str
    logged_at: datetime
    cluster: str | None = None
    by_tools: bool = False


@dataclass(frozen=True)
class Placed:
    """The placement of one row."""

    side: Side
    component_id: str
    stratum: str | None
    draw_id: str | None
    objection: str | None


def settled(
    sides: Mapping[str, Side] | None = None,
    drawn: int = 0,
    since: Mapping[str, datetime] | None = None,
) -> SettledSides:
    """Return the sides that snapshots settled."""
    known = sides or {}
    times = [_microseconds(since[name]) if since else NEVER for name in known]
    return SettledSides(
        pa.array([*known], pa.string()),
        np.array([SIDES.index(side) for side in known.values()], np.int64),
        np.array(times, np.int64),
        drawn,
    )


def place(rows: Sequence[Row], before: SettledSides, shares: Shares) -> list[Placed]:
    """Place rows, and return them as records."""
    bounds = np.cumsum([0, *(len(row.ties) for row in rows)])
    flat = pa.array([tie for row in rows for tie in row.ties], pa.string())
    names, (codes,) = text_codes.encode([flat])
    nothing = np.full(len(rows), MISSING)
    ties_of_rows = CodeLists(bounds, codes)
    clusters = _numbers([row.cluster for row in rows])
    by_tools = np.array([row.by_tools for row in rows], np.bool_)
    return _placed(
        (names, Relations(ties_of_rows, CodeLists.of([nothing]), clusters)),
        [(row.label, row.logged_at) for row in rows],
        (nothing, by_tools),
        before,
        shares,
    )


def tie_and_place(
    rows: Sequence[tuple[Row, RequestOrigin]], split_by: SplitBy, shares: Shares
) -> list[Placed]:
    """Tie rows by their origins and place them, without a snapshot before."""
    before = settled()
    origins = _origins([origin for _, origin in rows])
    clusters = _numbers([row.cluster for row, _ in rows])
    return _placed(
        row_clusters.tie(origins, clusters, split_by, before),
        [(row.label, row.logged_at) for row, _ in rows],
        (origins.former_group, origins.tools != MISSING),
        before,
        shares,
    )


def _placed(
    tied: tuple[TextCodes, Relations],
    logged: Sequence[tuple[str, datetime]],
    others: tuple[Ints, text_codes.Marks],
    before: SettledSides,
    shares: Shares,
) -> list[Placed]:
    labels, (codes,) = text_codes.encode([pa.array([label for label, _ in logged], pa.string())])
    former_groups, by_tools = others
    names, relations = tied
    members = Members(
        names,
        relations.ties,
        relations.clusters,
        former_groups,
        by_tools,
        labels.texts.to_pylist(),
        codes,
        np.array([_microseconds(at) for _, at in logged], np.int64),
    )
    placed = split.place(members, before, shares)
    strata = [*placed.stratum_names, None]
    columns = zip(
        placed.sides.tolist(),
        placed.strictest.tolist(),
        _component_ids(names, relations),
        [strata[number] for number in placed.strata.tolist()],
        members.names.take(placed.draws).to_pylist(),
        strict=True,
    )
    return [
        Placed(SIDES[side], name, stratum, draw, f"near_{SIDES[strict]}" if strict > side else None)
        for side, strict, name, stratum, draw in columns
    ]


def _component_ids(names: TextCodes, relations: Relations) -> list[str]:
    """Name each row's component by its smallest request."""
    requests = names.take(relations.ties.at(0)).to_pylist()
    firsts = relations.dependent(np.arange(len(requests))).tolist()
    smallest: dict[int, str] = {}
    for first, request in zip(firsts, requests, strict=True):
        smallest[first] = min(request, smallest.get(first, request))
    return [smallest[first] for first in firsts]


def _origins(origins: Sequence[RequestOrigin]) -> Origins:
    fields = (
        *("request", "redacted_request", "tools", "conversation", "user", "context"),
        *("answered_before", "answered", "former_group"),
    )
    columns = [pa.array([getattr(each, name) for each in origins], pa.string()) for name in fields]
    paths = pa.array([digest for each in origins for digest in each.path], pa.string())
    names, codes = text_codes.encode([*columns, paths])
    bounds = np.cumsum([0, *(len(each.path) for each in origins)])
    return Origins(
        names, path=CodeLists(bounds, codes[-1]), **dict(zip(fields, codes, strict=False))
    )


def _numbers(clusters: Sequence[str | None]) -> Ints:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return np.array([MISSING if name is None else numbers[name] for name in clusters], np.int64)


def _microseconds(at: datetime) -> int:
    return int((at - EPOCH).total_seconds() * 1_000_000)
