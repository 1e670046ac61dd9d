"""Register an approved adapter, and make it the champion or a canary."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from components.decide import decision_log
from components.gate.evidence_folder import Evidence
from components.register import registry, tracking, version_tags
from components.register.registry import Version
from components.release import champions, installation, release_state, releases
from components.store import warehouse
from components.store.ledger import Decision
from components.store.manifest import AdapterManifest
from components.store.warehouse import Location
from flows import (
    adapters,
    home_workloads,
    release_home,
    settings,
    trials,
    workload_file,
)
from flows.approval_loop import StaleEvidenceError
from flows.settings import Settings
from flows.trials import Trial
from flows.workload_file import Workload


class RolledBackError(RuntimeError):
    """The approved version has been champion before: its approval is used up."""


class ForeignEvidenceError(ValueError):
    """A promotion was started with evidence that is foreign, or did not pass the gate."""


def register_version(workload: Workload, evidence: Evidence) -> Version:
    """Register the adapter with lineage and card, as it was evaluated, unless it is registered."""
    subject, home = evidence.subject, settings.load()
    if there := registry.version_of_evidence(subject.workload, evidence.digest):
        return there
    adapter = home.adapters / subject.workload / subject.adapter
    made_from = AdapterManifest.read_untouched(adapter)
    template = made_from.prompt_template or ""
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        copied = Path(scratch) / subject.adapter
        adapters.copy_finished(home, adapter, copied, served_as=workload.base_name)
        return registry.register_version(
            subject.workload,
            tracking.find_run(subject.workload, subject.adapter),
            copied,
            served=replace(
                releases.serving_parameters(home.scorecards, subject, made_from),
                base=str(workload.base),
            ),
            sign=releases.folder_signer(home.keys),
            description=adapters.card_text(copied),
            tags={
                version_tags.EVIDENCE_TAG: evidence.digest,
                version_tags.ADAPTER_TAG: subject.adapter,
                "flywheel.snapshot": subject.snapshot,
                "flywheel.holdout_version": subject.holdout_version,
                "flywheel.base": subject.base,
                "flywheel.prompt_template": template,
                "flywheel.scorecard": subject.challenger_scorecard,
                "flywheel.commit": made_from.commit,
            },
        )


def crown(
    home: Settings,
    workload: Workload,
    evidence: Evidence,
    *,
    by: str,
    reason: str,
    rollout_id: str | None = None,
) -> Version:
    """Make an adapter whose approval was checked the champion; the caller holds the lock.

    ``rollout_id`` is the trial that led to it; another version's is ended.
    """
    name = evidence.subject.workload
    now = registry.champion_version(name)
    if now is None or now.evidence != evidence.digest:
        version = _release(home, workload, evidence)
        change = release_state.plan_promotion(
            name,
            version.number,
            evidence.digest,
            evidence.subject.adapter,
            by=by,
            reason=reason,
            rollout_id=rollout_id,
        )
        champions.promote(release_home.of(home), change)
    champion = registry.version_of_evidence(name, evidence.digest)
    assert champion is not None
    return champion


def _release(home: Settings, workload: Workload, evidence: Evidence) -> Version:
    name = evidence.subject.workload
    if objection := release_state.rolled_back(home.tables, name, evidence.subject.adapter):
        raise RolledBackError(f"promoting {name} on evidence {evidence.digest}: {objection}")
    version = register_version(workload, evidence)
    releases.release_version(release_home.of(home), version, evidence)
    return version


@dataclass(frozen=True, slots=True)
class PromotedVersion:
    """An approved version, and what it is now."""

    version: Version
    became: str


def promote_version(
    workload: Workload,
    evidence: Evidence,
    decision: Decision,
    still: Callable[[], None],
) -> PromotedVersion:
    """Make the approved adapter the champion, or a canary where its file orders one.

    Idempotent, and resumed after a kill. ``still`` raises if the approval no longer holds; it is
    called under the champion's lock. Raises ``ChangedAdapterError`` or ``SignatureError`` if files
    differ from what was approved.
    """
    home, name = settings.load(), evidence.subject.workload
    releases.require_bytes(home.adapters, evidence)
    with installation.lock_champion(home.tables, home.locks, name):
        champions.recover(release_home.of(home), name)
        still()
        champion = releases.recorded_champion(release_home.of(home), name)
        trial = trials.find().trial(home, name)
        _require_unused(home.tables, evidence, champion)
        _require_newest(home, evidence, trial)
        if champion is not None and champion.evidence == evidence.digest:
            return PromotedVersion(champion, "is champion")
        rules = home_workloads.in_force(home, workload).serve
        is_same = trial is not None and not trial.has_ended and trial.evidence == evidence.digest
        number = champion.number if champion else None
        why = trials.find().immediate_reason(home, rules, number, name)
        # Not even without a gateway: what is being tested doesn't pass because it restarts.
        if champion is None or (why is not None and not is_same):
            version = crown(home, workload, evidence, by=decision.approver, reason=decision.comment)
            at_once = f" at once: {why}" if rules.canary else ""
            return PromotedVersion(version, f"is champion{at_once}")
        version = _release(home, workload, evidence)
        began = trials.find().begin(home, rules, version, champion, decision)
        return PromotedVersion(
            version, f"answers a share beside version {champion.number} (canary {began})"
        )


def _require_unused(tables: Location, evidence: Evidence, champion: Version | None) -> None:
    """Refuse to make a champion twice by one approval: a run is started by whoever likes."""
    name = evidence.subject.workload
    if champion is not None and champion.evidence == evidence.digest:
        return
    objection = release_state.rolled_back(tables, name, evidence.subject.adapter)
    objection = objection or release_state.used_up(tables, name, evidence.digest)
    if objection:
        raise RolledBackError(f"promoting {name} on evidence {evidence.digest}: {objection}")


def _require_newest(home: Settings, evidence: Evidence, trial: Trial | None) -> None:
    """Refuse to replace a canary by what was approved before it, and is carried out late."""
    subject, digest = evidence.subject, evidence.digest
    if trial is None or trial.has_ended:
        return
    with warehouse.connect(home.tables) as con:
        links = decision_log.links(con, workload_id=subject.workload)
    approved = {link.evidence_digest: link.sequence for link in links if link.kind == "approve"}
    theirs = approved.get(trial.evidence, 0)
    if theirs > approved.get(digest, theirs):
        raise StaleEvidenceError(
            f"promoting {subject.workload} on evidence {digest}: version {trial.version}, which "
            "was approved after it, answers a share"
        )


def anchor(evidence: Evidence, decision: Decision) -> None:
    """Name the decision's link at the version, so that cutting the chain off is detected."""
    name = evidence.subject.workload
    version = registry.version_of_evidence(name, evidence.digest)
    if version is not None and decision.link:
        registry.tag_version(name, version.number, {version_tags.LINK_TAG: decision.link})


def in_force(home: Settings, evidence: Evidence) -> Workload:
    """Return the workload that the evidence's turn froze, with the current rules of its file."""
    name, frozen = evidence.subject.workload, home_workloads.of_evidence(home, evidence)
    if frozen is None:
        frozen = workload_file.read_workload(home_workloads.require(home, name))
    if frozen.workload != name:
        raise ForeignEvidenceError(f"promoting {name}: its file describes {frozen.workload}")
    return home_workloads.in_force(home, frozen)
