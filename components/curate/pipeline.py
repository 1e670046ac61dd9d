"""Curate one workload: judge every interaction and build the examples, in one transaction."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast

from components import warehouse
from components.curate import candidate as candidates
from components.curate import split
from components.curate.candidate import Candidate, MalformedError, Row
from components.curate.rules import screen
from components.curate.settings import Rules
from components.curate.split import Side
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules and the split made of one interaction, before duplicates are known."""

    interaction_id: str
    objection: str | None
    group_id: str | None = None
    side: Side | None = None
    tool_names: tuple[str, ...] = ()
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a workload's interactions.

    ``counts`` is by verdict, ``kept`` among them; ``feedback_waiting`` counts the feedback whose
    response has not arrived.
    """

    workload_id: str
    interactions: int
    train: int
    holdout: int
    counts: dict[str, int]
    feedback_waiting: int


def curate(con: Connection, workload_id: str, rules: Rules, *, now: datetime) -> Tally:
    """Judge every interaction of a workload and rebuild its verdicts and examples.

    Raises:
        SplitChangedError: A snapshot was frozen with another ``split_by``.
        CheckFailedError: A check found rows that must not be; then nothing is changed.
    """
    with warehouse.transaction(con):
        for model in ("staging/interactions", "staging/feedback", "staging/answers"):
            warehouse.build(con, model, workload_id=workload_id)
        settled = _settled_sides(con, workload_id, rules)
        rows = warehouse.read(con, "staging/candidates", Row)
        judgements = [judge(row, rules, settled) for row in rows]
        with warehouse.present(con, "judgements", _columns(workload_id, judgements)):
            values = {"split": rules.split_by, "judged_at": now}
            warehouse.refresh(con, "curated/verdicts", workload_id=workload_id, **values)
            warehouse.refresh(con, "curated/examples", workload_id=workload_id, **values)
        warehouse.check(con, workload_id=workload_id)
        return _tally(con, workload_id)


def judge(row: Row, rules: Rules, settled: Mapping[str, Side]) -> Judgement:
    """Judge one interaction by itself; pure."""
    try:
        candidate = candidates.read(row)
    except MalformedError as error:
        return Judgement(row.interaction_id, error.objection)
    if (objection := screen.objection(candidate, rules.max_prompt_chars)) is not None:
        return Judgement(row.interaction_id, objection)
    return _accept(candidate, rules, settled)


def _accept(candidate: Candidate, rules: Rules, settled: Mapping[str, Side]) -> Judgement:
    group = split.group(rules.split_by, candidate.tool_names, candidate.opening)
    return Judgement(
        candidate.interaction_id,
        None,
        group,
        split.settle(group, rules.holdout_share, settled),
        candidate.tool_names,
        # Arguments in the order given, not sorted: it is the order that the model learns.
        json.dumps(asdict(candidate.answer()), ensure_ascii=False),
    )


def _columns(workload_id: str, judgements: Iterable[Judgement]) -> dict[str, list[warehouse.Value]]:
    rows = list(judgements)
    return {
        "interaction_id": [row.interaction_id for row in rows],
        "workload_id": [workload_id for _ in rows],
        "objection": [row.objection for row in rows],
        "group_id": [row.group_id for row in rows],
        "side": [row.side for row in rows],
        "tool_names": [list(row.tool_names) for row in rows],
        "answer": [row.answer for row in rows],
    }


def _settled_sides(con: Connection, workload_id: str, rules: Rules) -> dict[str, Side]:
    """Read the sides that snapshots have settled; refuse if they were drawn in another way."""
    found = con.execute(
        "select group_id, side, split_by from curated.sides where workload_id = $workload_id",
        {"workload_id": workload_id},
    ).fetchall()
    if others := {split_by for _, _, split_by in found} - {rules.split_by}:
        raise split.SplitChangedError(
            f"curating {workload_id}: its snapshots were split by {', '.join(others)}, the config "
            f"says {rules.split_by}. That would test on rows that were trained on: set split_by "
            "back, or start a workload of another name"
        )
    return {group_id: cast("Side", side) for group_id, side, _ in found}


def _tally(con: Connection, workload_id: str) -> Tally:
    ((interactions,),) = con.execute("select count(*) from staging.interactions").fetchall()
    sides = con.execute(
        "select side, count(*) from curated.examples where workload_id = $workload_id group by all",
        {"workload_id": workload_id},
    ).fetchall()
    verdicts = con.execute(
        "select verdict, interactions from marts.verdicts where workload_id = $workload_id"
        " order by verdict",
        {"workload_id": workload_id},
    ).fetchall()
    ((waiting,),) = con.execute("select count(*) from staging.feedback where is_waiting").fetchall()
    by_side = dict(sides)
    return Tally(
        workload_id,
        interactions,
        by_side.get("train", 0),
        by_side.get("holdout", 0),
        dict(verdicts),
        waiting,
    )
