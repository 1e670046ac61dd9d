"""Flow `turn`: collect, curate, train, evaluate, gate, and ask a person."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from prefect import flow, task
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from components.dataset import snapshot_figures
from components.dataset.snapshot_figures import Snapshot
from components.decide import decision_log
from components.evaluate import holdout_task
from components.gate import evidence_folder, judge, reference_errors
from components.gate.comparability import Anchor, Measured
from components.gate.comparison import EarlierUse
from components.gate.evidence_folder import Evidence, EvidenceSubject, TurnReference
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.gate.report import write_report
from components.gate.report.words import Case
from components.monitor import turn_starts
from components.monitor.turn_starts import Cause, TurnStart
from components.register import registry
from components.release import release_state, releases
from components.scorecard import (
    BASE,
    CHALLENGER,
    CHAMPION,
    HOLDOUT,
    DamagedScorecardError,
    Scorecard,
    ScorecardFolders,
    scores_digest,
)
from components.scorecard import read as read_scorecard
from components.store import ledger, manifest, output_folders, warehouse
from components.store.ledger import Holdout, HoldoutUse
from components.store.manifest import AdapterManifest, folder_digest
from flows import (
    approvals,
    candidate_search,
    evaluate,
    flow_runs,
    home_workloads,
    preregistration,
    release_home,
    settings,
    train,
    turn_evidence,
)
from flows.collect import collect
from flows.curate import curate
from flows.flow_runs import run_name
from flows.stack import prometheus
from flows.turn_progress import Stages
from flows.workload_file import Workload

LOG = logging.getLogger(__name__)


class UnnamedStarterError(ValueError):
    """A turn was started by hand without the starter's name, which the rules require."""


def requested_start(workload: str, start: str | None) -> str | None:
    """Return a start that was requested; ``None`` for another, which counts as one by hand.

    With Prefect's login anybody can make one up, instead of naming who starts the turn.
    """
    if start is None:
        return None
    with warehouse.connect(settings.load().tables) as con:
        return start if turn_starts.is_requested(con, start, workload) else None


@task
def enter_start(workload: str, start: str | None) -> bool:
    """Claim the trigger's entry, or make one; return whether this turn may run."""
    run_id = str(flow_run.id)
    with warehouse.connect(settings.load().tables) as con:
        if start:
            return turn_starts.claim_start(con, start, run_id)
        cause = _cause()
        reason = "its time had come" if cause == "schedule" else "somebody started it"
        now = datetime.now(UTC)
        turn_starts.record_start(con, TurnStart(run_id, workload, cause, True, reason, now, run_id))
    return True


def starter_of_turn(workload: Workload, start: str | None, by: str) -> str:
    """Return who started this turn by hand; empty for a schedule or trigger."""
    if start or _cause() == "schedule":
        return ""
    if not by.strip() and workload.approve.refuse_starter:
        raise UnnamedStarterError(
            f"starting a turn of {workload.workload}: its file has refuse_starter, so name the "
            "starter: `flywheel turn FILE --as NAME`, or the parameter `by` in Prefect"
        )
    return by.strip()


@task
def note_starter(evidence: Evidence, starter: str) -> None:
    """Record who started an evidence's turn by hand."""
    now, run_id = datetime.now(UTC), str(flow_run.id or "")
    with warehouse.connect(settings.load().tables) as con:
        decision_log.record_starter(con, evidence.digest, run_id, starter, now)


def _cause() -> Cause:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return "schedule" if run and run.auto_scheduled else "person"


# A person is asked about the data set (held), or about the challenger, had decided before, or
# there was nothing to ask about.
Ending: TypeAlias = Literal[
    "held", "asked", "decided", "champion already", "rolled back", "fail", "inconclusive"
]

# What the stage `gate` shows of those that a verdict's own word does not tell.
ENDINGS: Mapping[Ending, str] = {
    "asked": "pass: a person is asked",
    "decided": "pass: a person decided on it before",
    "champion already": "nothing new: it is the champion already",
    "rolled back": "nothing new: it was rolled back before",
}

Output = TypeVar("Output")

STARTED_ALREADY = "started already"  # the result of a turn whose start another turn has claimed


class StageError(RuntimeError):
    """A stage that runs as a deployment did not finish its output."""


class OpponentChangedError(RuntimeError):
    """The champion is not the one that was measured."""


@dataclass(frozen=True, slots=True)
class TurnResult:
    """The result of a turn."""

    ending: Ending
    evidence: str | None = None
    promotion: str | None = None


@flow(flow_run_name=run_name)
def turn(config: str, start: str | None = None, by: str = "", adapter: str = "") -> str:
    """Turn the flywheel once for one workload.

    Args:
        config: The workload's file, read once: a turn that is run again reads what it froze.
        start: The entry in the log of starts that requested it, if any.
        by: Your name, where a person starts it.
        adapter: The key of an adapter, or its beginning, to judge again instead of training one.
    """
    begun = home_workloads.under_way(settings.load().turns, str(flow_run.id))
    workload = home_workloads.read(begun) if begun else home_workloads.workload_of_run(config)
    return carry_on(workload, start, by, adapter, is_frozen=begun is not None)


@prometheus.count_stage("turn", skipped=lambda ending: ending == STARTED_ALREADY)
def carry_on(
    workload: Workload, start: str | None, by: str, named: str = "", *, is_frozen: bool
) -> str:
    """Run or resume a turn to its end; freeze its workload first unless it is frozen.

    With the key of a ``named`` adapter that one is judged, and none is trained.
    """
    start = requested_start(workload.workload, start)
    starter = starter_of_turn(workload, start, by)
    if not enter_start(workload.workload, start):
        return STARTED_ALREADY
    evaluate.check_tasks(workload)
    folder = settings.load().turns / workload.workload / str(flow_run.id)
    if not is_frozen:
        home_workloads.begin(folder, workload)
    config = str(folder / home_workloads.RECORD)
    home_workloads.share(settings.load(), folder, workload)
    stages = Stages(folder)
    with stages.during("collect"):
        stages.note(collect(config))
    with stages.during("curate"):
        curated = curate(config)
        snapshot = curated.snapshot
        if snapshot:
            evaluate.require_measured(workload, snapshot.path)
            clusters = snapshot.clusters["holdout"]
            stages.note(
                f"{snapshot.train_rows} to train on, {snapshot.holdout_rows} held out in "
                f"{clusters} clusters"
            )
        else:
            stages.note("held: " + "; ".join(str(rule.loss) for rule in curated.lost))
    if snapshot is None:
        finish_turn(workload.workload, folder, stages, TurnResult("held"), [])
        return "held"
    parameters = {
        "config": settings.load().portable(folder / home_workloads.RECORD),
        "snapshot": settings.load().portable(snapshot.path),
    }
    with stages.during("train", training_folder(workload, snapshot.path)):
        if named:
            adapter, reused = find_adapter(workload, snapshot.path, named), True
        else:
            adapter, reused = train_challenger(workload, snapshot.path, parameters)
        stages.note(f"adapter {adapter.name}", reused=reused)
    preregister(workload, snapshot)
    with stages.during("evaluate", evaluate.evaluation_job_folder(adapter)):
        cards, reused = evaluate_models(workload, snapshot.path, parameters, adapter)
        stages.note(f"holdout version {snapshot.holdout_version}", reused=reused)
    with stages.during("gate"):
        reference = home_workloads.reference(folder)
        turned = conclude_turn(workload, snapshot, adapter, cards, reference, starter)
        stages.note(ENDINGS.get(turned.ending, turned.ending))
    outputs = [adapter, *evaluate.all_folders(cards)]  # curate has noted its snapshot
    finish_turn(workload.workload, folder, stages, turned, outputs)
    return turned.ending


def training_folder(workload: Workload, snapshot: Path) -> Path:
    """Return the folder with the progress of the training or search."""
    if workload.search:
        return candidate_search.find().search_folder(workload, snapshot)
    return train.training_job_folder(train.adapter_folder(workload, snapshot))


def find_adapter(workload: Workload, snapshot: Path, key: str) -> Path:
    """Find an adapter of an earlier snapshot by its key, or its beginning.

    ``LookupError``: There is none, or several. ``LearnedError``: It has learned what is held out.
    """
    home = settings.load()
    adapters = output_folders.find(home.adapters / workload.workload, key)
    if len(adapters) != 1:
        names = ", ".join(adapter.name for adapter in adapters) or "none"
        raise LookupError(f"looking up adapter {key} of {workload.workload}: found {names}")
    evaluate.require_unlearned(home, workload.workload, adapters[0], snapshot, HOLDOUT)
    return adapters[0]


def train_challenger(
    workload: Workload, snapshot: Path, parameters: dict[str, str]
) -> tuple[Path, bool]:
    """Train the challenger, or search for it; return its folder and whether it existed before."""
    if workload.search:
        return candidate_search.find().best_adapter(parameters["config"], workload, snapshot)
    adapter = train.adapter_folder(workload, snapshot)
    training = parameters | {"adapter": settings.load().portable(adapter)}
    return ensure_output(
        "train/train", training, lambda: adapter if output_folders.fetch(adapter) else None
    )


def evaluate_models(
    workload: Workload, snapshot: Path, parameters: dict[str, str], adapter: Path
) -> tuple[ScorecardFolders, bool]:
    """Evaluate all models; return their scorecard folders and whether they existed before."""
    home, name = settings.load(), workload.workload
    installed = release_home.of(home)
    releases.recorded_champion(installed, name)  # else a forged tag decides what is measured
    file = evaluate.cards_file(workload, snapshot, adapter)
    evaluation = parameters | {"adapter": home.portable(adapter), "cards": home.portable(file)}

    def find() -> ScorecardFolders | None:
        cards, champion = evaluate.cards_in(file), releases.recorded_champion(installed, name)
        if cards is None or not evaluate.are_of(cards, name, snapshot, adapter):
            return None
        return cards if evaluate.is_champion_measured(cards, champion, adapter) else None

    return ensure_output("evaluate/evaluate", evaluation, find)


def ensure_output(
    deployment: str, parameters: dict[str, str], find: Callable[[], Output | None]
) -> tuple[Output, bool]:
    """Run a deployment unless its output exists; return the output and whether it existed before.

    A run whose worker died is retried once, from its checkpoint. ``StageError``: no output at its
    end.
    """
    if (output := find()) is not None:
        return output, True
    run = flow_runs.run_child(deployment, parameters)
    if run.state_type == StateType.CRASHED:
        run = flow_runs.run_child(deployment, parameters)
    if (output := find()) is None:
        raise StageError(
            f"{deployment} ended {run.state_name} without finishing its output; its flow run is "
            f"{settings.load().run_page(run.id)}"
        )
    return output, False


@prometheus.count_stage("gate")
def conclude_turn(
    workload: Workload,
    snapshot: Snapshot,
    adapter: Path,
    cards: ScorecardFolders,
    reference: TurnReference,
    starter: str = "",
) -> TurnResult:
    """Judge the challenger and, if the gate passes it, make sure a person is asked once."""
    home = settings.load()
    champion = releases.recorded_champion(release_home.of(home), workload.workload)
    if champion and champion.adapter == adapter.name:
        return TurnResult("champion already")
    if objection := release_state.rolled_back(home.tables, workload.workload, adapter.name):
        get_run_logger().info(objection)
        return TurnResult("rolled back")
    evidence = assemble_evidence(workload, snapshot, adapter, cards, champion, reference)
    turn_evidence.publish_evidence(evidence)
    get_run_logger().info(
        "%s: %s", evidence.judgement.outcome, "; ".join(evidence.judgement.reasons)
    )
    if evidence.judgement.outcome != "pass":
        return TurnResult(evidence.judgement.outcome, str(evidence.folder))
    if starter:
        note_starter(evidence, starter)
    now = home_workloads.in_force(home, workload)
    with warehouse.connect(home.tables) as con:
        decision = decision_log.decision_on(con, evidence.digest, now.approve.rules())
    is_used_up = decision and release_state.used_up(home.tables, workload.workload, evidence.digest)
    if decision and (decision.decision == "reject" or is_used_up):
        return TurnResult("decided", str(evidence.folder))
    promotion = approvals.start_or_find(workload.workload, evidence.digest)
    return TurnResult("asked", str(evidence.folder), str(promotion.id))


@task
def preregister(workload: Workload, snapshot: Snapshot) -> None:
    """Seal the policy before anything is measured on a new holdout, and the rules for deciding."""
    preregistration.seal_policy(workload.gate, _digest_holdout(workload, snapshot))
    now = home_workloads.in_force(settings.load(), workload)
    preregistration.seal_rules(workload.workload, now.approve.rules())


def _digest_holdout(workload: Workload, snapshot: Snapshot) -> Holdout:
    version = snapshot.holdout_version
    cap = workload.curate.holdout_per_cluster
    return preregistration.digest_holdout(workload.workload, version, snapshot.path, cap)


@task
def assemble_evidence(
    workload: Workload,
    snapshot: Snapshot,
    adapter: Path,
    cards: ScorecardFolders,
    champion: registry.Version | None,
    reference: TurnReference,
) -> Evidence:
    """Judge challenger against opponent and write the evidence folder, unless it exists.

    ``OpponentChangedError``: the cards are of an earlier champion, so nothing is looked at.
    ``LearnedError``: the adapter was trained on what is held out here, or may have been.
    ``SourceGoneError``: an erasure has deleted some of what it is made from meanwhile.
    """
    home, made_from = settings.load(), AdapterManifest.read(adapter)
    evaluate.require_unlearned(home, workload.workload, adapter, snapshot.path, HOLDOUT)
    sources = output_folders.count_copies([snapshot.path, *evaluate.all_folders(cards)])
    if not evaluate.is_champion_measured(cards, champion, adapter):
        raise OpponentChangedError(
            f"judging {adapter.name} of {workload.workload}: another version became champion after "
            "the models were measured; run the turn again, which measures that one"
        )
    ours, base = (_read_scorecards(cards[role]) for role in (CHALLENGER, BASE))
    asked = holdout_task.times_asked(snapshot.path)
    ours = {**ours, HOLDOUT: replace(ours[HOLDOUT], asked=asked)}
    theirs = _read_scorecards(cards[CHAMPION]) if champion else base
    anchor = Anchor(BASE, base) if champion else None
    challenger, opponent = ours[HOLDOUT], theirs[HOLDOUT]
    subject = EvidenceSubject(
        workload=workload.workload,
        snapshot=snapshot.key,
        holdout_version=snapshot.holdout_version,
        base=challenger.base,
        adapter=adapter.name,
        opponent=champion.number if champion else BASE,
        challenger_scorecard=challenger.key,
        opponent_scorecard=opponent.key,
        guard_scorecards=tuple(
            card.key for cards in (ours, theirs) for task, card in cards.items() if task != HOLDOUT
        ),
        remarks=manifest.digest([workload.note, workload.cost.model_dump(mode="json")]),
        anchor_scorecards=tuple(card.key for card in anchor.cards.values()) if anchor else (),
        adapter_bytes=folder_digest(adapter),
    )
    judgement = judge_challenger(
        workload.gate, _digest_holdout(workload, snapshot), adapter.name, ours, theirs, anchor
    )
    root = home.evidence / workload.workload
    digest = evidence_folder.digest(subject, judgement, workload.gate)
    if output_folders.fetch(root / digest):
        return evidence_folder.read(root / digest)
    case = Case(
        subject,
        judgement,
        digest,
        ours,
        theirs,
        turn_evidence.compute_costs(
            home, workload, snapshot.path, adapter, cards, subject.opponent_name
        ),
        others=turn_evidence.other_scorecards(cards, base=champion is not None),
        counts=snapshot.counts,
        learned=snapshot_figures.learned_sentences(made_from.learned),
        references=[
            *snapshot_figures.own_reference_sentences(home.tables, snapshot.path),
            *reference_errors.claim_sentences(
                turn_evidence.reference_audit(home, workload.workload, snapshot.path),
                judgement.target,
            ),
        ],
        turns=write_report.earlier_turns(root, judgement.metric),
        note=workload.note,
    )
    with output_folders.while_kept(sources, root / digest):
        return write_report.write_evidence(
            case, root / digest, workload.gate, reference, now=datetime.now(UTC)
        )


def _read_scorecards(cards: Mapping[str, Path]) -> Measured:
    return {task: read_scorecard(card) for task, card in cards.items()}


def judge_challenger(
    policy: Policy,
    held: Holdout,
    adapter: str,
    ours: Measured,
    theirs: Measured,
    anchor: Anchor | None = None,
) -> Judgement:
    """Judge, and count it as a use of the holdout; a refused comparison is not a use."""
    if refused := judge.refuse(ours, theirs, policy, anchor):
        return refused
    guarded = sorted({guard.task for guard in policy.guarding()})
    tasks = sorted({policy.task, *guarded})
    judged = [cards[task] for cards in (ours, theirs) for task in tasks]
    judged += [anchor.cards[task] for task in guarded] if anchor else []
    taken = preregistration.record_use(
        policy,
        held,
        ours[policy.task],
        theirs[policy.task],
        adapter,
        [ours[task].key for task in guarded if task != policy.task],
        scores_digest(judged),
    )
    judgement = judge.judge(
        ours,
        theirs,
        policy,
        taken.look.number,
        left=taken.look.alpha_left,
        anchor=anchor,
        earlier=_earlier(taken.earlier, theirs[policy.task]),
    )
    return preregistration.record_judgement(taken, judgement)


def _earlier(looks: Sequence[HoldoutUse], opponent: Scorecard) -> list[EarlierUse]:
    """Read the scorecards of earlier uses for the same two models; none if one can't be read."""
    uses: list[EarlierUse] = []
    for look in looks:
        folders = [
            settings.load().scorecards / look.workload_id / key
            for key in (look.challenger_scorecard, look.opponent_scorecard)
        ]
        if not all(output_folders.fetch(folder) for folder in folders):
            return []  # a sequential test has to include every use
        try:
            ours, theirs = (read_scorecard(folder) for folder in folders)
        except DamagedScorecardError as error:
            LOG.warning("the bets of earlier looks are not carried on: %s", error)
            return []
        if (theirs.base, theirs.adapter) == (opponent.base, opponent.adapter):
            uses.append(EarlierUse(look.number, look.alpha or 0.0, ours, theirs))
    return uses


@task
def finish_turn(
    workload: str, folder: Path, stages: Stages, turned: TurnResult, outputs: list[Path]
) -> None:
    """Write the turn's manifest and record its outputs in the warehouse."""
    now = datetime.now(UTC)
    body = {
        "workload": workload,
        "ending": turned.ending,
        "evidence": turned.evidence,
        "promotion": turned.promotion,
        "stages": stages.as_json(),
    }
    home_workloads.withhold(settings.load(), folder)
    manifest.write(folder, kind="turn", now=now, body=body)
    with warehouse.connect(settings.load().tables) as con:
        for output in [*outputs, *([Path(turned.evidence)] if turned.evidence else []), folder]:
            ledger.record_output(con, workload, output, now=now)
