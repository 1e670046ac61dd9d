"""Who is champion: one pure function of the chain of decisions, and what is kept of it beside.

A change of champion is a link of the chain, which is the only record of it. Nothing is decided by
aliases or tags, which anybody with access to MLflow can write.

Pending rollbacks and a snapshot of the state lie in files, where no server writes, without names. A
rollback goes by the snapshot while others hold the warehouse, and is checked against the chain
later; the gateway holds MLflow's alias against it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from components.decide import chain, decision_log
from components.decide.chain import Head, Link
from components.decide.decision_log import LogEvent
from components.register import registry
from components.register.registry import Version
from components.register.version_tags import KNOWN, PENDING
from components.store import manifest, warehouse
from components.store.warehouse import Connection, Location

ChangeKind: TypeAlias = Literal["promoted", "rollback", "erased"]

ERASED_WORDS = "(erased)"

ApprovedPairs: TypeAlias = frozenset[tuple[str, str]]
"""Version numbers with the approved evidence on which each became champion."""


class RollbackError(ValueError):
    """The rollback has no valid target."""


class UnapprovedError(ValueError):
    """A version was to become champion on evidence that nobody has approved."""


@dataclass(frozen=True, slots=True)
class ChampionChange:
    """A change of a workload's champion: ``version`` follows ``champion_before``.

    ``version`` is empty where an erasure leaves no champion. ``rollout_id`` is the canary that
    ended with it: a rollback of one leaves ``version`` champion, and ``champion_before`` is the
    version that answered a share. The ``reason`` of an erasure is its certificate.
    """

    workload_id: str
    kind: ChangeKind
    evidence_digest: str
    adapter_key: str
    version: str
    champion_before: str | None
    adapter_before: str | None
    asked_by: str
    reason: str
    rollout_id: str | None = None

    @property
    def moves_champion(self) -> bool:
        """Whether another version answers everybody after it."""
        return self.kind != "rollback" or self.rollout_id is None

    @property
    def fields(self) -> dict[str, str]:
        """What its link's body commits to."""
        fields = {
            "evidence": self.evidence_digest,
            "to": self.version,
            "to_adapter": self.adapter_key,
            "left": self.champion_before or "",
            "left_adapter": self.adapter_before or "",
        }
        return fields | ({} if self.rollout_id is None else {"rollout": self.rollout_id})


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change with its place in the chain."""

    head: Head
    changed_at: datetime
    change: ChampionChange


def recorded_change(link: Link) -> RecordedChange | None:
    """Return the change that a link records; ``None`` if it records none."""
    if link.kind not in ("promoted", "rollback", "erased"):
        return None
    change = ChampionChange(
        workload_id=link.workload_id,
        kind=link.kind,
        evidence_digest=decision_log.body_value(link, "evidence"),
        adapter_key=decision_log.body_value(link, "to_adapter"),
        version=decision_log.body_value(link, "to"),
        champion_before=decision_log.body_value(link, "left") or None,
        adapter_before=decision_log.body_value(link, "left_adapter") or None,
        asked_by=ERASED_WORDS if link.approver is None else link.approver,
        reason=ERASED_WORDS if link.comment is None else decision_log.typed_comment(link),
        rollout_id=decision_log.body_value(link, "rollout") or None,
    )
    return RecordedChange(Head(link.sequence, link.digest), link.decided_at, change)


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """The champions of a workload so far.

    ``before`` maps each promoted version to the champion before it; ``left`` are the versions that
    a rollback demoted and no later change made champion again. ``changes`` are those that counted.
    """

    champion: str | None = None
    approved: ApprovedPairs = frozenset()
    before: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    left: frozenset[str] = frozenset()
    changes: tuple[RecordedChange, ...] = ()

    @property
    def last(self) -> RecordedChange | None:
        """The last change that moved the champion, as the end of no canary does."""
        moves = (each for each in reversed(self.changes) if each.change.moves_champion)
        return next(moves, None)

    @property
    def promoted(self) -> dict[str, ChampionChange]:
        """The promotions that made versions champion, by the version's number."""
        made = [each.change for each in self.changes if each.change.kind == "promoted"]
        return {change.version: change for change in made}

    def rolled_back(self, adapter: str) -> ChampionChange | None:
        """Return the rollback that demoted an adapter, unless it is champion again."""
        touching = [
            each.change
            for each in self.changes
            if adapter in (each.change.adapter_key, each.change.adapter_before)
        ]
        if not touching or touching[-1].adapter_key == adapter:
            return None
        return touching[-1] if touching[-1].kind == "rollback" else None


def state_of(links: Iterable[Link]) -> ReleaseState:
    """Derive a workload's champions from its links, in the order of the chain; pure.

    A promotion counts if somebody approved its evidence before, a rollback if it leads to a version
    that became champion so. An erasure always counts, and leads to such a version or to none.
    """
    evidence = set[str]()
    champion: str | None = None
    approved: set[tuple[str, str]] = set()
    before: dict[str, str | None] = {}
    left: set[str] = set()
    counted: list[RecordedChange] = []
    for link in links:
        if link.kind == "approve":
            evidence.add(link.evidence_digest)
        if (recorded := recorded_change(link)) is None:
            continue
        change = recorded.change
        pair = (change.version, change.evidence_digest)
        if change.kind == "promoted":
            if change.evidence_digest not in evidence:
                continue
            before[change.version] = champion
            approved.add(pair)
        elif change.kind == "rollback" and change.moves_champion and pair not in approved:
            continue
        counted.append(recorded)
        left.discard(change.version)
        if change.kind == "rollback" and change.champion_before is not None:
            left.add(change.champion_before)
        if change.moves_champion:
            champion = change.version if pair in approved else None
    return ReleaseState(champion, frozenset(approved), before, frozenset(left), tuple(counted))


def read_state(con: Connection, workload: str) -> ReleaseState:
    """Read a workload's champions."""
    return state_of(decision_log.links(con, workload_id=workload))


def rolled_back(tables: Location, workload: str, adapter: str) -> str | None:
    """Explain that an adapter was champion and was rolled back; ``None`` if it was not."""
    with warehouse.connect(tables) as con:
        change = read_state(con, workload).rolled_back(adapter)
    if change is None:
        return None
    if change.rollout_id is not None:
        return (
            f"adapter {adapter} answered a share as version {change.champion_before} and was "
            f"rolled back by {change.asked_by} ({change.reason or 'no reason given'}); new data "
            "makes another adapter"
        )
    # Whatever it is measured against now: the scores that won it an approval were wrong.
    return (
        f"adapter {adapter} was champion as version {change.champion_before} and was rolled back "
        f"by {change.asked_by} ({change.reason or 'no reason given'}); new data makes another "
        f"adapter, and `flywheel rollback {workload} --to {change.champion_before}` brings this "
        "one back"
    )


def used_up(tables: Location, workload: str, evidence: str) -> str | None:
    """Explain that an approval has made its version champion before; ``None`` if it has not."""
    with warehouse.connect(tables) as con:
        state = read_state(con, workload)
    for recorded in state.changes:
        change = recorded.change
        if (change.kind, change.evidence_digest) == ("promoted", evidence):
            return (
                f"version {change.version} became champion on it at "
                f"{recorded.changed_at:%Y-%m-%d %H:%M} UTC and is not any more, and an approval "
                f"makes a champion once; `flywheel rollback {workload} --to {change.version}` "
                "brings it back"
            )
    return None


def verified_state(con: Connection, workload: str) -> ReleaseState:
    """Read a workload's champions from the chain, which is recomputed.

    Raises:
        RollbackError: The chain does not hold.
    """
    links = decision_log.links(con)
    if broken := chain.first_broken(links, decision_log.read_head(con)):
        raise RollbackError(
            f"reading what was approved of {workload}: decision {broken.sequence} "
            f"{broken.problem}; `flywheel audit --verify` shows more"
        )
    return state_of(link for link in links if link.workload_id == workload)


def append_change(con: Connection, change: ChampionChange, now: datetime) -> None:
    """Append a promotion, or what an erasure did; call it within a transaction.

    From here on the champion is another one, whatever MLflow says.

    Raises:
        UnapprovedError: Nobody has approved the evidence.
    """
    event = LogEvent(
        kind=change.kind,
        workload=change.workload_id,
        evidence=change.evidence_digest,
        flow_run_id="",
        decided_at=now,
        approver=change.asked_by,
        comment=change.reason,
        attempt=0,
        body=json.dumps(change.fields, sort_keys=True, separators=(",", ":")),
    )
    decision_log.append_event(con, event)
    if (read_state(con, change.workload_id).champion or "") != change.version:
        raise UnapprovedError(
            f"making version {change.version} of {change.workload_id} champion: nobody has "
            f"approved evidence {change.evidence_digest} according to the chain of decisions"
        )


def may_serve(version: Version, approved: ApprovedPairs) -> bool:
    """Return whether a version was approved and has learned nothing that was erased."""
    return (version.number, version.evidence) in approved and not version.tainted


def previous(champion: str | None, known: ReleaseState, versions: Sequence[Version]) -> str | None:
    """Return the default target of a rollback; ``None`` without one.

    It is the nearest earlier champion that may serve and was not rolled back itself.
    """
    fit = {each.number for each in versions if may_serve(each, known.approved)} - known.left
    passed = set[str]()
    while champion is not None and champion not in passed:
        passed.add(champion)
        champion = known.before.get(champion)
        if champion in fit - passed:
            return champion
    return None


def plan_promotion(
    name: str,
    number: str,
    evidence: str,
    adapter: str,
    *,
    by: str,
    reason: str,
    rollout_id: str | None = None,
) -> ChampionChange:
    """Plan the promotion of a registered version on its approved evidence."""
    before = registry.champion_version(name)
    return ChampionChange(
        workload_id=name,
        kind="promoted",
        evidence_digest=evidence,
        adapter_key=adapter,
        version=number,
        champion_before=before.number if before else None,
        adapter_before=before.adapter if before else None,
        asked_by=by,
        reason=reason,
        rollout_id=rollout_id,
    )


def plan_erasure(left: Version, to: Version | None, certificate_id: str) -> ChampionChange:
    """Plan that a version loses its place, as rows that it learned from were erased."""
    return ChampionChange(
        workload_id=left.name,
        kind="erased",
        evidence_digest=(to or left).evidence,
        adapter_key=to.adapter if to else "",
        version=to.number if to else "",
        champion_before=left.number,
        adapter_before=left.adapter,
        asked_by="",
        reason=certificate_id,
    )


@dataclass(frozen=True, slots=True)
class Pending:
    """A rollback that was carried out while the warehouse was busy; its link is still missing."""

    change: ChampionChange
    ordered_at: Annotated[datetime, Field(alias="given_at")]
    flow_run_id: str


PENDINGS = TypeAdapter(Pending)


def write_pending(folder: Path, pending: Pending) -> None:
    """Store a rollback until the warehouse is free; the caller holds the workload's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    text = PENDINGS.dump_json(pending, by_alias=True).decode()
    manifest.write_atomically(_file(folder, pending.change.workload_id), text)


def read_pending(folder: Path, workload: str) -> Pending | None:
    """Read a workload's pending rollback; ``None`` if it has none."""
    path = _file(folder, workload)
    return PENDINGS.validate_json(path.read_bytes()) if path.exists() else None


def drop_pending(folder: Path, workload: str) -> None:
    """Delete a pending rollback after its link is in the chain."""
    _file(folder, workload).unlink(missing_ok=True)


def pending_workloads(folder: Path) -> list[str]:
    """List the workloads that have a pending rollback."""
    return [path.name.removesuffix(PENDING) for path in sorted(folder.glob(f"*{PENDING}"))]


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{PENDING}"


@dataclass(frozen=True, slots=True)
class KnownChampions:
    """A workload's champions, without the changes themselves; MLflow followed ``through`` a link.

    ``is_open``: anybody may order a rollback, by any name. ``followed_at`` is when MLflow's alias
    followed that link; before it follows a later one, ``state`` has that already.
    """

    state: ReleaseState
    is_open: bool
    through: str
    followed_at: datetime


def write_known(folder: Path, workload: str, known: KnownChampions) -> None:
    """Write the known champions; the caller holds the workload's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "champion": known.state.champion,
        "approved": sorted(map(list, known.state.approved)),
        "before": dict(known.state.before),
        "left": sorted(known.state.left),
        "is_open": known.is_open,
        "through": known.through,
        "followed_at": known.followed_at.isoformat(),
    }
    manifest.write_atomically(_known_file(folder, workload), json.dumps(content))


def read_known(folder: Path, workload: str) -> KnownChampions | None:
    """Read the known champions; ``None`` before the first promotion."""
    path = _known_file(folder, workload)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    approved = frozenset((number, evidence) for number, evidence in content["approved"])
    left = frozenset(content["left"])
    state = ReleaseState(content["champion"], approved, content["before"], left)
    followed_at = datetime.fromisoformat(content["followed_at"])
    return KnownChampions(state, content["is_open"], content["through"], followed_at)


def _known_file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{KNOWN}"
