"""The append-only log of canaries in the warehouse: how each began, ended and was settled."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Literal, TypeAlias

from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection

RolloutStep: TypeAlias = Literal["intended", "started", "undecided", "ended", "settled"]

RolloutEnding: TypeAlias = Literal["hold", "roll back", "sent on", "stopped"]
"""``hold``: it was shown to be within the margin, and becomes champion by rule. ``roll back``: by
rule, or by a person. ``sent on``: a person made it champion though it was undecided. ``stopped``:
nothing was shown, because the champion or the version changed, or another canary came."""

LEADS_ON = frozenset({"hold", "sent on"})  # endings after which the version becomes champion


@dataclass(frozen=True, slots=True)
class RolloutEntry:
    """A step of a canary; see ``raw.rollouts`` for each field."""

    rollout_id: str
    workload_id: str
    step: RolloutStep
    version: str
    champion: str
    evidence_digest: str
    adapter_key: str
    outcome: str
    note: str
    noted_at: datetime
    record: str

    def content(self) -> dict[str, Json]:
        """Return what its record holds."""
        content: Json = json.loads(self.record)
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True, slots=True)
class RecordedRollout:
    """A canary by its steps so far."""

    entries: Mapping[str, RolloutEntry]

    @property
    def intention(self) -> RolloutEntry:
        """Its first step, which every canary has."""
        return self.entries["intended"]

    @property
    def id(self) -> str:
        """The order's id."""
        return self.intention.rollout_id

    @property
    def order(self) -> str:
        """The order's text, as the version's tag has it."""
        return str(self.intention.content()["order"])

    @property
    def ending(self) -> RolloutEntry | None:
        """How it ended; ``None`` while it runs."""
        return self.entries.get("ended")

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do about it."""
        return "settled" in self.entries


def first_step(
    rollout_id: str,
    workload: str,
    version: str,
    champion: str,
    *,
    evidence: str,
    adapter: str,
    order: str,
    now: datetime,
) -> RolloutEntry:
    """Return the step that intends a canary."""
    return RolloutEntry(
        rollout_id=rollout_id,
        workload_id=workload,
        step="intended",
        version=version,
        champion=champion,
        evidence_digest=evidence,
        adapter_key=adapter,
        outcome="",
        note="",
        noted_at=now,
        record=json.dumps({"order": order}),
    )


def add_step(
    con: Connection,
    rollout: RecordedRollout,
    step: RolloutStep,
    now: datetime,
    *,
    outcome: str = "",
    note: str = "",
    record: Mapping[str, Json] = MappingProxyType({}),
) -> None:
    """Record a further step, unless it is recorded: the first one counts."""
    here = {entry.step for entry in _entries(con, rollout.intention.workload_id, rollout.id)}
    if step not in here:
        write(
            con,
            replace(
                rollout.intention,
                step=step,
                outcome=outcome,
                note=note,
                noted_at=now,
                record=json.dumps(dict(record)),
            ),
        )


def write(con: Connection, entry: RolloutEntry) -> None:
    """Record a step."""
    warehouse.insert(con, "raw.rollouts", [asdict(entry)])


def list_rollouts(con: Connection, workload: str | None = None) -> list[RecordedRollout]:
    """List the canaries of a workload, or of all, the oldest first."""
    steps = dict[str, dict[str, RolloutEntry]]()
    for entry in _entries(con, workload):
        steps.setdefault(entry.rollout_id, {})[entry.step] = entry
    return [RecordedRollout(entries) for entries in steps.values()]


def unsettled(con: Connection, workload: str) -> RecordedRollout | None:
    """Return the canary of a workload that is under way or was interrupted."""
    return next((each for each in list_rollouts(con, workload) if not each.is_settled), None)


def _entries(
    con: Connection, workload: str | None, rollout_id: str | None = None
) -> list[RolloutEntry]:
    entries = warehouse.read(con, "marts/rollouts", RolloutEntry, workload_id=workload)
    return [entry for entry in entries if rollout_id in (None, entry.rollout_id)]
