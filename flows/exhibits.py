"""Gather what is put before whoever decides: what was measured, what it costs, the turns before."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import cast

from components import costs, manifest
from components.dataset import usage
from components.evaluate.harness import Folders
from components.gate import brief, evidence
from components.gate.evidence import Evidence, Scores, Subject, TurnReference
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.gate.report import baselines, production
from components.gate.report import write as report
from components.gate.report.case import Case, Costs
from components.gate.report.pictures.history import Past
from components.schema import Json
from components.scorecard import HOLDOUT, PRODUCTION, Scorecard
from components.scorecard import read as read_scorecard
from flows import evaluate
from flows.settings import Settings
from flows.workload import Workload

Table = Mapping[str, Json]


def reckon(
    home: Settings, workload: Workload, snapshot: Path, adapter: Path, cards: Folders, opponent: str
) -> Costs:
    """Reckon what production, challenger, opponent and base cost.

    Args:
        home: Where the warehouse is.
        workload: Whose prices.
        snapshot: What was evaluated on.
        adapter: The challenger.
        cards: The scorecards' folders, by role and task.
        opponent: What the opponent is called.
    """
    names = {evaluate.CHAMPION: opponent}
    speeds = {
        names.get(role, role): costs.speed_in(manifest.read(tasks[HOLDOUT]))
        for role, tasks in cards.items()
        if HOLDOUT in tasks
    }
    ratio = workload.cost.production_token_ratio
    used = usage.production(home.warehouse, home.scratch, snapshot, workload.base, ratio)
    trained = manifest.read(adapter).get(costs.TRAINING)
    bill = costs.bill(
        workload.cost,
        production=used,
        challenger=speeds[evaluate.CHALLENGER],
        training=costs.work_in(trained),
    )
    prices = {name: costs.answering(workload.cost, speed) for name, speed in speeds.items()}
    return Costs(bill, prices | {PRODUCTION: bill.production}, used, speeds[evaluate.CHALLENGER])


def others(cards: Folders, *, base: bool) -> dict[str, Scorecard]:
    """Read the holdout's scorecards of models that are neither challenger nor champion.

    Args:
        cards: The scorecards' folders, by role and task.
        base: Whether the base is among them, or the opponent.
    """
    told = {evaluate.CHALLENGER, evaluate.CHAMPION, *([] if base else [evaluate.BASE])}
    return {
        role: read_scorecard(tasks[HOLDOUT])
        for role, tasks in cards.items()
        if role not in told and HOLDOUT in tasks
    }


def write(
    case: Case, folder: Path, policy: Policy, turn: TurnReference, *, now: datetime
) -> Evidence:
    """Write the evidence of a turn: pictures, report, brief, every request; the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = dict(evidence.scores(case.challenger[HOLDOUT], case.opponent[HOLDOUT]))
    if policy.task in case.challenger and policy.task in case.opponent:
        scores |= evidence.scores(case.challenger[policy.task], case.opponent[policy.task])
    figures = report.write(case, folder, this=_past(case.subject, case.judgement, scores, now))
    text = brief.write(case, figures, folder / report.PICTURES["differences"])
    return evidence.finish(
        folder,
        case.subject,
        case.judgement,
        policy,
        scores,
        brief=text,
        now=now,
        account=production.account(case),
        baselines=baselines.scores(case),
        beside=baselines.hold(case).sentences,
        turn=turn,
    )


def _past(subject: Subject, judgement: Judgement, scores: Scores, made: datetime) -> Past:
    scored = scores.get(judgement.metric, {})
    return Past(
        day=made.strftime("%m-%d"),
        holdout_version=subject.holdout_version,
        outcome=judgement.outcome,
        challenger=scored.get("challenger"),
        low=scored.get("low"),
        high=scored.get("high"),
        opponent=scored.get("opponent"),
    )


def earlier(home: Settings, workload: str, metric: str) -> list[Past]:
    """List what the turns before came to on a metric, the oldest first, from their evidence."""
    folders = (home.evidence / workload).glob("*")
    records = [manifest.read(one) for one in folders if manifest.is_finished(one)]
    ordered = sorted(records, key=lambda one: (str(one["created_at"]), str(one["key"])))
    return [_read_past(one, metric) for one in ordered]


def _read_past(record: Table, metric: str) -> Past:
    subject, judged = cast("Table", record["subject"]), cast("Table", record["judgement"])
    scored = cast("Scores", record["scores"]).get(metric, {})
    return Past(
        day=str(record["created_at"])[5:10],
        holdout_version=str(subject["holdout_version"]),
        outcome=str(judged["outcome"]),
        challenger=scored.get("challenger"),
        low=scored.get("low"),
        high=scored.get("high"),
        opponent=scored.get("opponent"),
    )


def folder(home: Settings, workload: str, digest: str | None) -> Path:
    """Find the newest evidence with a report, or the one whose digest begins so.

    Raises:
        LookupError: There is none, or more than one.
    """
    root, begins = home.evidence / workload, digest or ""
    reported = [one for one in root.glob("*") if (one / report.REPORT).is_file()]
    found = [one for one in reported if one.name.startswith(begins) and manifest.is_finished(one)]
    if not found or (digest and len(found) > 1):
        said = ", ".join(sorted(one.name for one in found)) or "none"
        raise LookupError(
            f"looking up evidence {begins} of {workload}: wants one with a report, found {said} "
            f"in {root}; `flywheel turn` makes it"
        )
    return max(found, key=lambda one: (str(manifest.read(one)["created_at"]), one.name))


def target(home: Settings, workload: str) -> str | None:
    """Name the metric that the newest evidence is about; ``None`` before there is any."""
    try:
        policy = manifest.read(folder(home, workload, None))["policy"]
    except LookupError:
        return None
    return str(cast("Table", policy)["metric"])
