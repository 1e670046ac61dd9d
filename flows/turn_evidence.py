"""The evidence of a turn: what it states besides the scores, and where people find it."""

from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.context import TaskRunContext

from components import costs
from components.chat import token_counts
from components.costs import Costs
from components.dataset import held_references
from components.dataset.snapshot_figures import CARD
from components.decide import decision_log
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence
from components.gate.reference_errors import ReferenceAudit
from components.register import tracking
from components.review import audit
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
from components.store import output_folders, warehouse
from components.store.manifest import AdapterManifest, EvidenceManifest, ScorecardManifest
from flows import approvals, settings
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
    used = token_counts.production_usage(home.tables, home.scratch, snapshot, workload.base, ratio)
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


def find_evidence(home: Settings, workload: str, digest: str | None) -> Path:
    """Find the newest evidence with a report, or the only one with this digest prefix."""
    root, begins = home.evidence / workload, digest or ""
    finished = output_folders.find(root, begins)
    matching = [path for path in finished if (path / evidence_folder.REPORT).is_file()]
    if not matching or (digest and len(matching) > 1):
        names = ", ".join(sorted(path.name for path in matching)) or "none"
        which = f"evidence {digest}" if digest else "the newest evidence"
        raise LookupError(
            f"looking up {which} of {workload}: expected one with a report, found "
            f"{names} in {root}; `flywheel turn` makes it"
        )
    return max(matching, key=lambda folder: EvidenceManifest.read(folder).age)


def _evidence_cache_key(_: TaskRunContext, parameters: dict[str, Evidence]) -> str:
    return f"report-{parameters['evidence'].digest}"


@task(persist_result=True, cache_key_fn=_evidence_cache_key)
def publish_evidence(evidence: Evidence) -> str:
    """Add the evidence to its adapter's MLflow run, and link it from Prefect; return the link.

    The run is tagged with the current head of the decision chain, holdout use included. Approvers
    see the brief in the form; if the gate did not pass, it is kept here.
    """
    workload = evidence.subject.workload
    run_id = tracking.find_run(workload, evidence.subject.adapter)
    with warehouse.connect(settings.load().tables) as con:
        head = decision_log.read_head(con)
    if head is not None:
        tracking.tag_chain_head(run_id, head.anchor)
    finding = f"{evidence.judgement.outcome} against the {evidence.subject.opponent_name}"
    folder = tracking.log_evidence(run_id, evidence.folder, finding)
    page = f"{settings.load().mlflow_url}/{folder}/{evidence_folder.REPORT}"
    title = f"{workload}: {evidence.judgement.outcome}, the report"
    description = f"{finding}, evidence {evidence.digest}"
    key = approvals.artifact_key("report", workload)
    create_link_artifact(page, title, key=key, description=description)
    if evidence.judgement.outcome != "pass":
        create_markdown_artifact(
            (evidence.folder / evidence_folder.BRIEF).read_text(),
            key=approvals.artifact_key("gate", workload),
            description=description,
        )
    return page


def evidence_links(evidence: Evidence) -> Mapping[str, str]:
    """Return the links to the full report, the training's run and earlier turns' pages."""
    home, workload = settings.load(), evidence.subject.workload
    run_id = tracking.find_run(workload, evidence.subject.adapter)
    report = f"{tracking.evidence_page(run_id, evidence.digest)}/{evidence_folder.REPORT}"
    return {
        "the whole report": f"{home.mlflow_url}/{report}",
        "the adapter's run in MLflow": f"{home.mlflow_url}/{tracking.run_page(run_id)}",
        "pages of earlier turns": (
            f"{home.prefect_url}/artifacts/key/{approvals.artifact_key('gate', workload)}"
        ),
    }


def data_card(evidence: Evidence) -> str:
    """Read the dataset card of the challenger's training data; empty if missing."""
    folder = settings.load().snapshots / output_folders.folder_name(evidence.subject.workload)
    path = folder / evidence.subject.snapshot / CARD
    return path.read_text() if path.exists() else ""


def reference_audit(home: Settings, workload: str, snapshot: Path) -> ReferenceAudit:
    """Count a snapshot's held-out references, and what an audit of the workload's found by now."""
    held = held_references.read(home.tables, snapshot)
    with warehouse.connect(home.tables) as con:
        drawn = audit.drawn(con, workload)
    return ReferenceAudit(
        references=len(held),
        unvouched=sum(not row.is_vouched for row in held),
        drawn=len(drawn),
        answered=sum(row.verdict is not None for row in drawn),
        wrong=sum(row.verdict == "wrong" for row in drawn),
        batches=max((row.batch for row in drawn), default=0),
        auditors=tuple(sorted({row.auditor for row in drawn if row.auditor})),
    )
