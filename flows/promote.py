"""Promote: ask a person, then register the winner; suspended, it holds no process for days."""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Completed

from components import warehouse
from components.decide import record
from components.gate import evidence
from components.gate.evidence import Evidence
from components.ledger import Decision
from components.register import registry
from flows import (
    asking,
    fresh,
    registering,
    run_inputs,
    settings,
    workload_files,
    workload_record,
)
from flows import config as configs
from flows.approvals import page_key
from flows.fresh import StaleEvidenceError
from flows.run_names import run_name
from flows.settings import Settings
from flows.workload import Workload


class ForeignEvidenceError(ValueError):
    """What a promotion was started with is not evidence of this home, or not the workload's."""


@flow(flow_run_name=run_name)
def promote(
    workload: str = "", evidence: str = "", config: str = "", evidence_folder: str = ""
) -> State[None]:
    """Show the evidence, wait for a decision, store it, and on approval crown the challenger.

    Whoever starts it says which evidence it is about, and nothing else: the folder is this home's,
    and the rules are those of the workload's own file.

    Args:
        workload: Whose evidence.
        evidence: Its digest.
        config: Of runs that an older version started: the workload's file.
        evidence_folder: Of those: the evidence's folder, instead of the first two.

    Raises:
        ForeignEvidenceError: It is not about evidence of this home, or by another file.
        StaleEvidenceError: What the evidence is about has changed; a turn was started.
    """
    home = settings.load()
    found = locate(home, workload, evidence, evidence_folder)
    rules = in_force(home, found, config)
    try:
        decision = decide(found, rules)
        if decision.decision == "reject":
            reject(found, decision)
            return Completed(message=f"rejected by {decision.approver}: {decision.comment}")
        version = crown(rules, found, decision)
    except StaleEvidenceError as error:
        registering.let_go(found)
        asking.lapse(asking.question(found, 0), None, str(error))
        file = workload_files.require(home, rules.workload)
        started = fresh.start_turn(str(file), rules.workload, str(error))
        url = f"{home.prefect_url}/runs/flow-run/{started}"
        raise StaleEvidenceError(f"{error}; a turn evaluates afresh: {url}") from error
    return Completed(
        message=f"approved by {decision.approver}: version {version.number} is champion"
    )


def locate(home: Settings, workload: str, digest: str, folder: str) -> Evidence:
    """Read the evidence that a promotion is about, from this home and nowhere else.

    Args:
        home: Where it must lie.
        workload: Whose it is.
        digest: Its digest.
        folder: Its folder, as older versions name it.

    Raises:
        ForeignEvidenceError: It lies elsewhere, or is another workload's.
    """
    root = home.evidence.resolve()
    path = (Path(folder) if folder else root / workload / digest).resolve()
    if len(path.parts) != len(root.parts) + 2 or path.parent.parent != root:
        raise ForeignEvidenceError(
            f"promoting by {path}: it is no evidence of this home, expected {root}/WORKLOAD/DIGEST"
        )
    if not (path / evidence.VERDICT).is_file():
        raise ForeignEvidenceError(f"promoting by {path}: there is no evidence")
    found = evidence.read(path)
    named = (workload or path.parent.name, digest or path.name)
    if found.subject.workload != path.parent.name or named != (path.parent.name, path.name):
        raise ForeignEvidenceError(
            f"promoting by {path}: it is evidence on {found.subject.workload}, asked was for "
            f"{' '.join(named)}"
        )
    return found


def in_force(home: Settings, found: Evidence, config: str = "") -> Workload:
    """Return the workload that the evidence's turn froze, under the rules of its file by now.

    Evidence of a turn that froze none is about the workload's file, which is frozen now.

    Raises:
        ForeignEvidenceError: The run names another file, or one of another workload.
        RecordChangedError: The frozen workload is another one than the evidence refers to.
        WorkloadFileError: This home knows no file of the workload, and nothing was frozen of it.
    """
    frozen = workload_record.of_evidence(home.turns, found)
    if config or frozen is None:
        file = rules_file(home, found, config)
        if frozen is None:
            frozen = configs.read(file)
            workload_record.adopt(home.turns, found, frozen)
    return workload_record.in_force(home, frozen)


def rules_file(home: Settings, found: Evidence, config: str) -> Path:
    """Find the file whose rules hold: the workload's own in this home.

    A run that waits since before this home knew its workloads' files brings its own, once.

    Raises:
        ForeignEvidenceError: The run names another file, or one of another workload.
        WorkloadFileError: This home knows no file of the workload.
    """
    workload = found.subject.workload
    known = workload_files.find(home, workload)
    if known is None and config and is_from_before(home):
        workload_files.require_unserved(home, Path(config))
        with run_inputs.silent_about(home, Path(config)):
            named = configs.read(Path(config)).workload
        if named == workload:
            workload_files.adopt(home, workload, Path(config))
        known = workload_files.find(home, workload)
    file = known or workload_files.require(home, workload)
    if config and Path(config).resolve() != file:
        raise ForeignEvidenceError(
            f"promoting {workload} by the rules of {config}: this home's file of it is {file}"
        )
    named = configs.read(file).workload
    if named != workload:
        raise ForeignEvidenceError(
            f"promoting {workload} by the rules of {file}: it describes {named}"
        )
    return file


def is_from_before(home: Settings) -> bool:
    """Tell whether this run was made before the home was upgraded; Prefect's server dates runs."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.created is None:
        return False
    with warehouse.connect(home.warehouse) as con:
        return run.created.timestamp() < record.since(con).timestamp()


def decide(found: Evidence, workload: Workload) -> Decision:
    """Show the evidence and give what was decided on it, before or now.

    Raises:
        StaleEvidenceError: Its data was erased, or an answer came too late.
    """
    fresh.require_unerased(found)
    brief = (found.folder / evidence.BRIEF).read_text()
    publish(brief, found.digest, workload.workload)
    challenge(workload, found)
    return asking.ask(brief, found, workload)


def _once_per_evidence(_: TaskRunContext, parameters: dict[str, str]) -> str:
    return f"brief-{parameters['digest']}"


@task(persist_result=True, cache_key_fn=_once_per_evidence)
def publish(page: str, digest: str, workload: str) -> str:
    """Keep the page as an artifact; under the workload's key the pages form a history."""
    create_markdown_artifact(page, key=page_key(workload), description=digest)
    return digest


@task
def challenge(workload: Workload, found: Evidence) -> None:
    """Register what is asked about, as challenger."""
    registering.challenge(workload, found)


@task
def crown(workload: Workload, found: Evidence, decision: Decision) -> registry.Version:
    """Make the challenger champion; safe to repeat, and finished after a kill.

    What was decided is held against the rules of this moment, once nobody else can change them.
    """

    def still() -> None:
        fresh.require_fresh(found, workload)
        asking.require_decided(found, workload_record.in_force(settings.load(), workload))

    return registering.crown(workload, found, decision, still)


@task
def reject(found: Evidence, decision: Decision) -> None:
    """Say on the version that it was rejected."""
    registering.reject(found, decision)
