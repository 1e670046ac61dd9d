"""Read signals from the warehouse, and write what they come to: before the verdicts, and after."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from components import warehouse
from components.curate.preferences import algebra, fates, writing
from components.curate.preferences.fates import Placement
from components.curate.preferences.records import Weighed
from components.curate.preferences.settings import Preferences
from components.curate.preferences.signal import Judged, Signal
from components.curate.preferences.texts import Redact
from components.curate.preferences.writing import Request
from components.warehouse import Connection, Value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Records = Sequence[Mapping[str, Value]]


def weigh(con: Connection, workload_id: str, config: Preferences) -> Weighed:
    """Weigh the staged feedback of a workload, and say what it makes of each logged answer.

    Rebuilds ``staging.regards`` and ``staging.unused``, which ``staging.answers`` reads, and the
    workload's evidence: ``curated.conflicts``, ``curated.shares``, ``curated.bursts``.
    """
    for model in ("staging/signals", "staging/judged"):
        warehouse.build(con, model)
    signals = list(warehouse.read(con, "staging/signals", Signal))
    weighed = algebra.weigh(signals, warehouse.read(con, "staging/judged", Judged), config)
    silent = {one.signal.feedback_id for one in weighed.readings if one.fate}
    unused = sorted(silent | weighed.defence.held_back.keys())
    warehouse.replace(con, "staging.regards", [_record(one) for one in weighed.regards], None)
    warehouse.replace(con, "staging.unused", [{"feedback_id": one} for one in unused], None)
    warehouse.replace(
        con, "curated.conflicts", [_record(one) for one in weighed.conflicts], workload_id
    )
    warehouse.replace(con, "curated.shares", _shares(weighed), workload_id)
    warehouse.replace(con, "curated.bursts", _bursts(weighed), workload_id)
    return weighed


def build(
    con: Connection, workload_id: str, weighed: Weighed, config: Preferences, redact: Redact
) -> None:
    """Write the pairs, labels and fates of a workload whose verdicts and examples are settled."""
    placements = _placements(con, workload_id)
    written = writing.write(weighed, placements, _requests(con, placements), config, redact)
    warehouse.replace(
        con, "curated.preferences", [_record(one) for one in written.pairs], workload_id
    )
    warehouse.replace(con, "curated.labels", [_record(one) for one in written.labels], workload_id)
    by_side: dict[str, set[str]] = {"train": set(), "holdout": set()}
    for one in written.pairs:
        by_side[one.side].update(one.feedback_ids)
    ends = fates.all_of(
        weighed,
        by_side["train"],
        {feedback_id for one in written.labels for feedback_id in one.feedback_ids},
        _in_examples(con, workload_id),
        by_side["holdout"],
        written.refused,
    )
    records = [_record(one) for one in ends]
    records += [{"feedback_id": one, "fate": "superseded", "detail": None} for one in _old(con)]
    warehouse.replace(con, "curated.fates", records, workload_id)


def _placements(con: Connection, workload_id: str) -> dict[str, Placement]:
    found = warehouse.read(con, "staging/placements", Placement, workload_id=workload_id)
    return {one.interaction_id: one for one in found}


def _requests(con: Connection, placements: Mapping[str, Placement]) -> dict[str, Request]:
    """Give what the interactions asked that may be learned from or measured on."""
    named = [
        one
        for one in placements
        if fates.usable([one], placements)[0] or fates.usable([one], placements, "holdout")[0]
    ]
    with warehouse.present(con, "named", {"interaction_id": named or [""]}):
        rows = warehouse.rows(
            con,
            "select interaction_id, messages, tools, client_id from staging.interactions"
            " semi join named using (interaction_id)",
        )
    return {
        str(row["interaction_id"]): Request(
            str(row["messages"]), str(row["tools"]), str(row["client_id"])
        )
        for row in rows
    }


def _in_examples(con: Connection, workload_id: str) -> set[str]:
    found = con.execute(
        "select distinct unnest(feedback_ids) from curated.examples"
        " where workload_id = $workload_id",
        {"workload_id": workload_id},
    ).fetchall()
    return {feedback_id for (feedback_id,) in found}


def _old(con: Connection) -> list[str]:
    """Give the feedback of which its actor has said something newer."""
    found = con.execute(
        "select feedback_id from staging.given anti join staging.feedback using (feedback_id)"
        " order by feedback_id"
    ).fetchall()
    return [feedback_id for (feedback_id,) in found]


def _shares(weighed: Weighed) -> Records:
    return [
        {
            "client_id": one.actor[0],
            "actor_id": one.actor[1],
            "signals": one.signals,
            "kept": one.kept,
            "weight_before": one.weight_before,
            "weight_after": one.weight_after,
            "share_before": one.share_before,
            "share_after": one.share_after,
            "cap": one.cap,
        }
        for one in weighed.defence.shares
    ]


def _bursts(weighed: Weighed) -> Records:
    return [
        {**_record(one), "actors": [actor_id for _, actor_id in one.actors]}
        for one in weighed.defence.bursts
    ]


def _record(one: "DataclassInstance") -> dict[str, Value]:
    return cast("dict[str, Value]", asdict(one))
