"""One turn of the flywheel: collect, curate, train, evaluate, gate, and ask a person.

Every stage finds what an earlier run of it finished, by content, so a turn that was killed goes on
where it was and a second turn on the same traffic has nothing to do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from prefect import flow, task
from prefect.client.schemas.objects import StateType
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from components import ledger, manifest, warehouse
from components.dataset import learned
from components.dataset.snapshot import Snapshot
from components.evaluate.harness import Folders
from components.folder_digest import folder_digest
from components.gate import evidence, judge
from components.gate.comparable import Anchor, Measured
from components.gate.compare import Earlier
from components.gate.evidence import Evidence, Subject, TurnReference
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.gate.report.case import Case
from components.looks import Holdout, Look
from components.register import registry
from components.scorecard import HOLDOUT, Scorecard
from components.scorecard import read as read_scorecard
from flows import (
    approvals,
    champions,
    dispatch,
    evaluate,
    exhibits,
    metrics,
    run_inputs,
    seals,
    search,
    settings,
    showing,
    starting,
    train,
    workload_record,
)
from flows.asking import recorded
from flows.collect import collect
from flows.curate import curate
from flows.run_names import run_name
from flows.stages import Stages
from flows.workload import Workload

Ending: TypeAlias = Literal[
    "held", "asked", "decided", "champion already", "rolled back", "fail", "inconclusive"
]
"""How a turn ended: a person is asked about the data set, or about the challenger, had decided
before, or there was nothing to ask about."""

Output = TypeVar("Output")

STARTED_ALREADY = "started already"
"""What a turn returns whose start another turn has taken."""


class StageError(RuntimeError):
    """A stage that runs as a deployment did not finish its output."""


@dataclass(frozen=True, slots=True)
class Turned:
    """What a turn came to."""

    ending: Ending
    evidence: str | None = None
    promotion: str | None = None


@flow(flow_run_name=run_name)
def turn(config: str, start: str | None = None, by: str = "") -> str:
    """Turn the flywheel once for one workload.

    Args:
        config: The workload's file, read once: a turn that is run again reads what it froze.
        start: The entry in the book of starts that asks for it, if any.
        by: Your name, where a person starts it.
    """
    begun = workload_record.under_way(settings.load().turns, str(flow_run.id))
    workload = workload_record.read(begun) if begun else run_inputs.workload(config)
    return carry_on(workload, start, by, is_frozen=begun is not None)


@metrics.staged("turn", skipped=lambda ending: ending == STARTED_ALREADY)
def carry_on(workload: Workload, start: str | None, by: str, *, is_frozen: bool) -> str:
    """Take a turn to its end from where it is; its workload is frozen first, unless it is."""
    starter = starting.starter(workload, start, by)
    if not starting.enter(workload.workload, start):
        return STARTED_ALREADY
    evaluate.look_over(workload)
    folder = settings.load().turns / workload.workload / str(flow_run.id)
    if not is_frozen:
        workload_record.begin(folder, workload)
    config = str(folder / workload_record.NAME)
    stages = Stages(folder)
    with stages.during("collect"):
        stages.say(collect(config))
    with stages.during("curate"):
        curated = curate(config)
        snapshot = curated.snapshot
        if snapshot:
            evaluate.require_measured(workload, snapshot.path)
            clusters = snapshot.clusters["holdout"]
            stages.say(
                f"{snapshot.train_rows} to train on, {snapshot.holdout_rows} held out in "
                f"{clusters} clusters"
            )
        else:
            stages.say("held: " + "; ".join(str(one.loss) for one in curated.lost))
    if snapshot is None:
        finish(workload.workload, folder, stages, Turned("held"), [])
        return "held"
    given = {"config": config, "snapshot": str(snapshot.path)}
    with stages.during("train", training_folder(workload, snapshot.path)):
        adapter, reused = trained(workload, given)
        stages.say(f"adapter {adapter.name}", reused=reused)
    seal(workload, snapshot)
    with stages.during("evaluate", evaluate.job_folder(adapter)):
        cards, reused = measured(workload, given, adapter)
        stages.say(f"holdout version {snapshot.holdout_version}", reused=reused)
    with stages.during("gate"):
        reference = workload_record.reference(folder)
        turned = conclude(workload, snapshot, adapter, cards, reference, starter)
        stages.say(turned.ending)
    outputs = [adapter, *evaluate.every(cards)]  # curate has noted its snapshot
    finish(workload.workload, folder, stages, turned, outputs)
    return turned.ending


def training_folder(workload: Workload, snapshot: Path) -> Path:
    """Name the folder where the training, or the search, says how far it is."""
    if workload.search:
        return search.folder(workload, snapshot)
    return train.job_folder(train.folder(workload, snapshot))


def trained(workload: Workload, given: dict[str, str]) -> tuple[Path, bool]:
    """Train the challenger, or search for it; tell whether it was there before."""
    snapshot = Path(given["snapshot"])
    if workload.search:
        return search.best(given["config"], workload, snapshot)
    adapter = train.folder(workload, snapshot)
    asked = given | {"adapter": str(adapter)}
    return ensure("train/train", asked, lambda: adapter if manifest.is_finished(adapter) else None)


def measured(workload: Workload, given: dict[str, str], adapter: Path) -> tuple[Folders, bool]:
    """Have all models scored, and be told where; tell whether they were before."""
    file = evaluate.cards_file(workload, Path(given["snapshot"]), adapter)
    asked = given | {"adapter": str(adapter), "cards": str(file)}
    return ensure("evaluate/evaluate", asked, lambda: evaluate.cards_in(file))


def ensure(
    deployment: str, parameters: dict[str, str], find: Callable[[], Output | None]
) -> tuple[Output, bool]:
    """Run a deployment unless its output can be found; tell whether it could.

    A training or evaluation whose worker died is started once more, from its checkpoint.

    Raises:
        StageError: It ended without finishing its output.
    """
    if (found := find()) is not None:
        return found, True
    run = dispatch.run(deployment, parameters)
    if run.state_type == StateType.CRASHED:
        run = dispatch.run(deployment, parameters)
    if (found := find()) is None:
        raise StageError(
            f"{deployment} ended {run.state_name} without finishing its output; its flow run is "
            f"{settings.load().prefect_url}/runs/flow-run/{run.id}"
        )
    return found, False


@metrics.staged("gate")
def conclude(
    workload: Workload,
    snapshot: Snapshot,
    adapter: Path,
    cards: Folders,
    reference: TurnReference,
    starter: str = "",
) -> Turned:
    """Judge the challenger and, where the gate passes it, see that a person is asked once."""
    champion = registry.champion(workload.workload)
    if champion and champion.adapter == adapter.name:
        return Turned("champion already")
    if said := champions.rolled_back(workload.workload, adapter.name):
        get_run_logger().info(said)
        return Turned("rolled back")
    found = assemble(workload, snapshot, adapter, cards, champion, reference)
    showing.show(found)
    get_run_logger().info("%s: %s", found.judgement.outcome, "; ".join(found.judgement.reasons))
    if found.judgement.outcome != "pass":
        return Turned(found.judgement.outcome, str(found.folder))
    if starter:
        starting.note(found, starter)
    now = workload_record.in_force(settings.load(), workload)
    decision = recorded(found.digest, now.approve.rules())
    if decision and decision.decision == "reject":
        return Turned("decided", str(found.folder))
    return Turned("asked", str(found.folder), promotion(found))


@task
def seal(workload: Workload, snapshot: Snapshot) -> None:
    """Seal the policy before anything is measured on a new holdout, and the rules for deciding."""
    seals.seal(workload.gate, _held(workload, snapshot))
    now = workload_record.in_force(settings.load(), workload)
    seals.seal_rules(workload.workload, now.approve.rules())


def _held(workload: Workload, snapshot: Snapshot) -> Holdout:
    return seals.holdout(workload.workload, snapshot.holdout_version, snapshot.path)


@task
def assemble(
    workload: Workload,
    snapshot: Snapshot,
    adapter: Path,
    cards: Folders,
    champion: registry.Version | None,
    reference: TurnReference,
) -> Evidence:
    """Judge challenger against opponent and write the evidence folder, unless it exists."""
    home = settings.load()
    ours, base = (_read(cards[role]) for role in (evaluate.CHALLENGER, evaluate.BASE))
    theirs = _read(cards[evaluate.CHAMPION]) if champion else base
    anchor = Anchor(evaluate.BASE, base) if champion else None
    challenger, opponent = ours[HOLDOUT], theirs[HOLDOUT]
    subject = Subject(
        workload=workload.workload,
        snapshot=snapshot.key,
        holdout_version=snapshot.holdout_version,
        base=challenger.base,
        adapter=adapter.name,
        opponent=champion.number if champion else evaluate.BASE,
        challenger_scorecard=challenger.key,
        opponent_scorecard=opponent.key,
        guard_scorecards=tuple(
            card.key for one in (ours, theirs) for task, card in one.items() if task != HOLDOUT
        ),
        remarks=manifest.digest([workload.note, workload.cost.model_dump(mode="json")]),
        anchor_scorecards=tuple(card.key for card in anchor.cards.values()) if anchor else (),
        adapter_bytes=folder_digest(adapter),
    )
    judgement = judged(workload.gate, _held(workload, snapshot), adapter.name, ours, theirs, anchor)
    root = home.evidence / workload.workload
    # What an older version asked about keeps its decision: it is found by its own digest.
    older = root / evidence.older_digest(subject, judgement, workload.gate)
    if manifest.is_finished(older):
        return evidence.read(older)
    digest = evidence.digest(subject, judgement, workload.gate)
    folder = root / digest
    if manifest.is_finished(folder):
        return evidence.read(folder)
    case = Case(
        subject,
        judgement,
        digest,
        ours,
        theirs,
        exhibits.reckon(home, workload, snapshot.path, adapter, cards, subject.opponent_name),
        others=exhibits.others(cards, base=champion is not None),
        counts=snapshot.counts,
        learned=learned.said(manifest.read(adapter)),
        turns=exhibits.earlier(home, workload.workload, judgement.metric),
        note=workload.note,
    )
    return exhibits.write(case, folder, workload.gate, reference, now=datetime.now(UTC))


def _read(cards: Mapping[str, Path]) -> Measured:
    return {task: read_scorecard(card) for task, card in cards.items()}


def judged(
    policy: Policy,
    held: Holdout,
    adapter: str,
    ours: Measured,
    theirs: Measured,
    anchor: Anchor | None = None,
) -> Judgement:
    """Judge, as the look at this holdout that it is; what can't be compared is no look."""
    refused = judge.refuse(ours, theirs, policy, anchor)
    if refused:
        return refused
    taken = seals.take(policy, held, ours[policy.task], theirs[policy.task], adapter)
    found = judge.judge(
        ours,
        theirs,
        policy,
        taken.look.number,
        left=taken.left,
        anchor=anchor,
        earlier=_earlier(taken.earlier, theirs[policy.task]),
    )
    return seals.judged(taken, found)


def _earlier(looks: Sequence[Look], opponent: Scorecard) -> list[Earlier]:
    """Read the scorecards of earlier looks at the same two models; none where one is gone.

    Bets that are carried on have to be carried on over every look.
    """
    found: list[Earlier] = []
    for look in looks:
        folders = [
            settings.load().scorecards / look.workload_id / key
            for key in (look.challenger_scorecard, look.opponent_scorecard)
        ]
        if not all(manifest.is_finished(folder) for folder in folders):
            return []
        ours, theirs = (read_scorecard(folder) for folder in folders)
        if (theirs.base, theirs.adapter) == (opponent.base, opponent.adapter):
            found.append(Earlier(look.number, look.alpha or 0.0, ours, theirs))
    return found


def promotion(found: Evidence) -> str:
    """Start the promotion that asks a person, or find the one that is under way."""
    tags = [approvals.workload_tag(found.subject.workload), approvals.evidence_tag(found.digest)]
    waiting = dispatch.find("promote", *tags, states=approvals.UNDER_WAY)
    if waiting:
        return str(waiting[0].id)
    asked = {"workload": found.subject.workload, "evidence": found.digest}
    return str(dispatch.start("promote/promote", asked, tags).id)


@task
def finish(
    workload: str, folder: Path, stages: Stages, turned: Turned, outputs: list[Path]
) -> None:
    """Write the turn's manifest and note every output of it in the warehouse."""
    now = datetime.now(UTC)
    body = {
        "workload": workload,
        "ending": turned.ending,
        "evidence": turned.evidence,
        "promotion": turned.promotion,
        "stages": stages.as_json(),
    }
    manifest.write(folder, kind="turn", now=now, body=body)
    with warehouse.connect(settings.load().warehouse) as con:
        for output in [*outputs, *([Path(turned.evidence)] if turned.evidence else []), folder]:
            ledger.record_output(con, workload, output, now=now)
