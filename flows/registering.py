"""Register what a person is asked about, and change who is champion: whole, or not at all."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from components import manifest, rendering, warehouse
from components.evaluate.settings import EvaluationSettings
from components.gate.evidence import Evidence
from components.ledger import Decision
from components.register import (
    aliases,
    challenger,
    crowning,
    journal,
    registry,
    rollback,
    tracking,
)
from components.register.journal import Entry, Journal
from components.register.logged import Served
from components.register.registry import Version
from components.scorecard import read as read_scorecard
from flows import finishing, settings
from flows.config import Workload
from flows.settings import Settings


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
            served=_served(home, workload, found, template),
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
    version = register(workload, found)
    challenger.name_it(version)
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
        RolledBackError: It was champion before, and somebody has rolled it back.
    """
    home, name = settings.load(), found.subject.workload
    with journal.held(home.locks, name):
        crowning.settle(books(home), name)
        still()
        champion = registry.champion(name)
        if champion is None or champion.evidence != found.digest:
            if said := rolled_back(name, found.subject.adapter):
                raise RolledBackError(f"crowning {name} on evidence {found.digest}: {said}")
            change = crowning.promotion(
                name,
                found.digest,
                found.subject.adapter,
                by=decision.approver,
                reason=decision.comment,
            )
            crowning.promote(books(home), change, lambda: register(workload, found))
    crowned = registry.of_evidence(name, found.digest)
    assert crowned is not None
    return crowned


def reject(found: Evidence, decision: Decision) -> None:
    """Say on the version that it was rejected; it is challenger no more."""
    challenger.reject(
        found.subject.workload, found.digest, by=decision.approver, comment=decision.comment
    )


def let_go(found: Evidence) -> None:
    """Take the challenger's alias from what nobody is asked about any more."""
    challenger.let_go(found.subject.workload, found.digest)


def roll_back(home: Settings, workload: str, to: str | None, *, by: str, reason: str) -> Entry:
    """Make an older champion the champion again; a rollback that was killed is finished instead.

    The warehouse is held from the first line to the last, so it is waited for only once.

    Raises:
        RollbackError: There is no version to go back to, or not to that one.
    """
    with journal.held(home.locks, workload), warehouse.connect(home.warehouse) as con:
        held = Journal(lambda: nullcontext(con), _now)
        for settled in crowning.settle(held, workload):
            meant = settled.change.kind == "rollback" and to in (None, settled.change.version)
            if meant and settled.step == "done":
                return settled
        change = rollback.plan(
            workload,
            registry.versions(workload),
            aliases.read(workload),
            journal.changes(con, workload),
            to,
            by=by,
            reason=reason,
        )
        return crowning.roll_back(held, change)


def rolled_back(workload: str, adapter: str) -> str | None:
    """Say that an adapter was champion and was rolled back; ``None`` if it was not.

    The same adapter is not asked about again, whatever it is measured against: the scores that won
    it a person's approval are what turned out to be wrong.
    """
    with warehouse.connect(settings.load().warehouse) as con:
        entry = journal.rolled_back(con, workload, adapter)
    if entry is None:
        return None
    change = entry.change
    return (
        f"adapter {adapter} was champion as version {change.champion_before} and was rolled back "
        f"by {change.asked_by} ({change.reason or 'no reason given'}); new data makes another "
        f"adapter, and `flywheel rollback {workload} --to {change.champion_before}` brings this "
        "one back"
    )


def reconcile(home: Settings) -> list[Entry]:
    """Finish or undo every change of a champion that was interrupted; give what became of each.

    One that a living process is at is left to it.
    """
    if not home.warehouse.exists():
        return []
    with warehouse.connect(home.warehouse) as con:
        names = {one.change.workload_id for one in journal.unfinished(con)}
    settled: list[Entry] = []
    for name in sorted(names):
        with journal.held(home.locks, name, wait=False) as is_ours:
            if is_ours:
                settled += crowning.settle(books(home), name)
    return settled


def say(entry: Entry) -> str:
    """Say in a line what became of a change."""
    change = entry.change
    ended = {"done": "finished", "undone": "undone"}[entry.step]
    return f"{change.workload_id}: {change.kind} {entry.number} {ended}: {entry.said}"


def say_rollback(entry: Entry) -> str:
    """Say which version answers now, and where the next rollback would lead."""
    change = entry.change
    left = f"version {change.champion_before}" if change.champion_before else "no champion"
    further = (
        f"version {change.previous_after} is before it"
        if change.previous_after
        else "nothing is before it"
    )
    return (
        f"{change.workload_id}: from {left} back to version {change.version}, adapter "
        f"{change.adapter_key}; {further}"
    )


def books(home: Settings) -> Journal:
    """Give the journal of a home, which holds the warehouse for a line only."""
    return Journal(lambda: warehouse.connect(home.warehouse), _now)


def _now() -> datetime:
    return datetime.now(UTC)


def _served(home: Settings, workload: Workload, found: Evidence, template: str) -> Served:
    subject = found.subject
    card = read_scorecard(home.scorecards / subject.workload / subject.challenger_scorecard)
    evaluated = EvaluationSettings.model_validate(card.conditions["settings"])
    return Served(
        base=str(workload.base),
        base_hash=subject.base,
        prompt_template=template,
        precision=evaluated.precision,
        max_new_tokens=evaluated.max_new_tokens,
    )
