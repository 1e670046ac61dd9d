"""What a training goes on from: the champion's adapter, or the base alone."""

from dataclasses import dataclass
from pathlib import Path

from components import base, manifest
from components.register import registry, taint
from components.train import warm
from flows import settings
from flows.workload import Workload


@dataclass(frozen=True, slots=True)
class Origin:
    """What a training goes on from: an adapter's folder, or nothing, and why."""

    adapter: Path | None
    reason: str


def find(workload: Workload) -> Origin:
    """Find what the training goes on from: the champion's adapter, where the recipe wants it."""
    if not workload.train.warm_start:
        return Origin(None, "the recipe wants no warm start")
    champion = registry.champion(workload.workload)
    if champion is None:
        return Origin(None, "there is no champion yet")
    adapter = settings.load().adapters / workload.workload / champion.adapter
    said = f"champion version {champion.number}"
    if taint.is_tainted(champion):
        return Origin(None, f"{said} has learned from rows that were erased")
    if not manifest.is_finished(adapter):
        return Origin(None, f"the adapter of {said} is not at {adapter}")
    made_from = manifest.read_untouched(adapter)
    objection = warm.objection(workload.train, base.content_hash(workload.base), made_from)
    if objection:
        return Origin(None, f"{said} can't be gone on from: {objection}")
    return Origin(adapter, f"{said} is of the same shape")
