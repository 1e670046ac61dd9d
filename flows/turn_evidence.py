"""Assemble the evidence of a turn: its costs, the scores beside it, its report and brief."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from components import costs
from components.dataset import snapshot_figures
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, TurnReference
from components.gate.policy import Policy
from components.gate.report import baseline_comparison, brief, production_costs
from components.gate.report import write_report as report
from components.gate.report.report_charts import Past
from components.gate.report.words import Case, Costs
from components.scorecard import (
    BASE,
    CHALLENGER,
    CHAMPION,
    HOLDOUT,
    PRODUCTION,
    Scorecard,
    ScorecardFolders,
)
from components.scorecard import read as read_scorecard
from components.store import output_folders
from components.store.manifest import AdapterManifest, EvidenceManifest, ScorecardManifest
from flows.settings import Settings
from flows.workload_file import Workload


def compute_costs(
    home: Settings,
    workload: Workload,
    snapshot: Path,
    adapter: Path,
    cards: ScorecardFolders,
    opponent: str,
) -> Costs:
    """Compute the costs of production, challenger, opponent and base."""
    names = {CHAMPION: opponent}
    speeds = {
        names.get(role, role): ScorecardManifest.read(tasks[HOLDOUT]).speed
        for role, tasks in cards.items()
        if HOLDOUT in tasks
    }
    ratio = workload.cost.production_token_ratio
    used = snapshot_figures.production_usage(
        home.tables, home.scratch, snapshot, workload.base, ratio
    )
    bill = costs.bill(
        workload.cost,
        production=used,
        challenger=speeds[CHALLENGER],
        training=AdapterManifest.read(adapter).training_work,
    )
    prices = {name: costs.answering(workload.cost, speed) for name, speed in speeds.items()}
    return Costs(bill, prices | {PRODUCTION: bill.production}, used, speeds[CHALLENGER])


def other_scorecards(cards: ScorecardFolders, *, base: bool) -> dict[str, Scorecard]:
    """Read the holdout scorecards of other models than the two compared; ``base``: its, too."""
    shown_already = {CHALLENGER, CHAMPION, *([] if base else [BASE])}
    return {
        role: read_scorecard(tasks[HOLDOUT])
        for role, tasks in cards.items()
        if role not in shown_already and HOLDOUT in tasks
    }


def write_evidence(
    case: Case, folder: Path, policy: Policy, turn: TurnReference, *, now: datetime
) -> Evidence:
    """Write the evidence of a turn: pictures, report, brief, every request; the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = dict(evidence_folder.scores(case.challenger[HOLDOUT], case.opponent[HOLDOUT]))
    if policy.task in case.challenger and policy.task in case.opponent:
        scores |= evidence_folder.scores(case.challenger[policy.task], case.opponent[policy.task])
    figures = report.write(
        case,
        folder,
        this=_past(
            f"{now:%m-%d}",
            case.subject.holdout_version,
            case.judgement.outcome,
            scores.get(case.judgement.metric, {}),
        ),
    )
    text = brief.write(case, figures, folder / report.PICTURES["differences"])
    return evidence_folder.finish(
        folder,
        case.subject,
        case.judgement,
        policy,
        scores,
        brief=text,
        now=now,
        account=production_costs.account(case),
        baselines=baseline_comparison.scores(case),
        baseline_sentences=baseline_comparison.hold(case).sentences,
        turn=turn,
    )


def _past(day: str, holdout_version: str, outcome: str, scored: Mapping[str, float | None]) -> Past:
    figures = (scored.get(name) for name in ("challenger", "low", "high", "opponent"))
    return Past(day, holdout_version, outcome, *figures)


def earlier_turns(home: Settings, workload: str, metric: str) -> list[Past]:
    """List the results of earlier turns on a metric, oldest first, from their evidence."""
    folders = output_folders.find(home.evidence / workload)
    records = [EvidenceManifest.read(path) for path in folders]
    return [
        _past(
            record.created_at[5:10],
            record.subject.holdout_version,
            record.judgement.outcome,
            record.scores.get(metric, {}),
        )
        for record in sorted(records, key=lambda record: record.age)
    ]
