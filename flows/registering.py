"""Register what a person is asked about, and make what was approved the champion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from components import manifest, rendering
from components.gate.evidence import Evidence
from components.ledger import Decision
from components.register import champion, journal, registry, tracking
from components.register.registry import Version
from flows import champions, finishing, releases, settings
from flows.workload import Workload


class RolledBackError(RuntimeError):
    """What was approved has been champion and was rolled back: its approval is used up."""


def register(workload: Workload, found: Evidence) -> Version:
    """Register the adapter with its lineage and its card, or find it registered.

    It will be loaded as it was evaluated, whatever the workload's file says by now.
    """
    subject, home = found.subject, settings.load()
    if there := registry.of_evidence(subject.workload, found.digest):
        return there
    adapter = home.adapters / subject.workload / subject.adapter
    made_from = manifest.read_untouched(adapter)
    template = str(made_from[rendering.TEMPLATE])
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        copied = Path(scratch) / subject.adapter
        finishing.copy(home, adapter, copied, served_as=workload.base_name)
        return registry.register(
            subject.workload,
            tracking.find_run(subject.workload, subject.adapter),
            copied,
            served=replace(releases.served(home, subject, made_from), base=str(workload.base)),
            sign=releases.signer(home),
            description=finishing.card_text(copied),
            tags={
                registry.EVIDENCE_TAG: found.digest,
                registry.ADAPTER_TAG: subject.adapter,
                "flywheel.snapshot": subject.snapshot,
                "flywheel.holdout_version": subject.holdout_version,
                "flywheel.base": subject.base,
                "flywheel.prompt_template": template,
                "flywheel.scorecard": subject.challenger_scorecard,
                "flywheel.commit": str(made_from.get("commit", "")),
            },
        )


def challenge(workload: Workload, found: Evidence) -> Version:
    """Register what a person is about to be asked about, as challenger."""
    releases.require_bytes(settings.load(), found)
    version = register(workload, found)
    champion.set_challenger(version)
    return version


def crown(
    workload: Workload, found: Evidence, decision: Decision, still: Callable[[], None]
) -> Version:
    """Make what was approved the champion; safe to repeat, and finished after a kill.

    Args:
        workload: Whose.
        found: What was approved.
        decision: By whom and why.
        still: Raises if the approval does not hold any more; asked when nobody else can change the
            champion.

    Raises:
        ChangedAdapterError: The adapter's bytes are others than the evidence is about.
        RolledBackError: It was champion before, and somebody has rolled it back.
        SignatureError: The version's files at MLflow are not those that were registered.
    """
    home, name = settings.load(), found.subject.workload
    releases.require_bytes(home, found)
    with journal.held(home.locks, name):
        champions.recover(home, name)
        still()
        _anchor(found, decision)
        now = registry.champion(name)
        if now is None or now.evidence != found.digest:
            if said := champions.rolled_back(name, found.subject.adapter):
                raise RolledBackError(f"crowning {name} on evidence {found.digest}: {said}")
            version = register(workload, found)
            releases.release_version(home, version, found)
            change = champion.promotion(
                name,
                version.number,
                found.digest,
                found.subject.adapter,
                by=decision.approver,
                reason=decision.comment,
            )
            journal_of = champions.books(home)
            champion.carry_out(journal_of, journal_of.intend(change))
            champions.remember(home, name)
    crowned = registry.of_evidence(name, found.digest)
    assert crowned is not None
    return crowned


def reject(found: Evidence, decision: Decision) -> None:
    """Say on the version that it was rejected; it is challenger no more."""
    champion.reject(
        found.subject.workload, found.digest, by=decision.approver, comment=decision.comment
    )
    _anchor(found, decision)


def _anchor(found: Evidence, decision: Decision) -> None:
    """Say on the version where the decision stands in the chain, so that none is cut off it."""
    name = found.subject.workload
    version = registry.of_evidence(name, found.digest)
    if version is not None and decision.link:
        registry.tag(name, version.number, {registry.LINK_TAG: decision.link})


def let_go(found: Evidence) -> None:
    """Take the challenger's alias from what nobody is asked about any more."""
    champion.clear_challenger(found.subject.workload, found.digest)
