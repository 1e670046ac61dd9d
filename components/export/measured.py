"""Find what was measured of an adapter on its holdout, and of its base and baselines likewise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components import manifest, scorecard
from components.schema import Json
from components.scorecard import BASELINES, FEW_SHOT, HOLDOUT, UNTRAINED, Scorecard

Record = Mapping[str, Json]

TOLD_BY = ("num_fewshot", "examples", "baseline", "baseline_version")
"""Conditions in which few-shot and the baselines differ from the adapter."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An adapter's newest scorecard, and others that were made under equal conditions.

    ``base`` is its base's, ``baselines`` are those of few-shot and of what needs no language model.
    """

    adapter: Scorecard
    base: Scorecard | None
    baselines: Mapping[str, Scorecard] = field(default_factory=dict[str, Scorecard])


def newest(key: str, folders: Iterable[Path]) -> Measured | None:
    """Find the newest scorecard of an adapter; ``None`` if there is none.

    Args:
        key: The adapter's.
        folders: Those of scorecards, finished or not.

    Raises:
        ValueError: A scorecard that was found is not as it was finished.
    """
    records = {one: manifest.read(one) for one in sorted(folders) if manifest.is_finished(one)}
    records = {one: record for one, record in records.items() if record.get("task") == HOLDOUT}
    ordered = sorted(records, key=lambda one: (str(records[one]["created_at"]), one.name))
    own = [one for one in ordered if records[one]["adapter"] == key]
    if not own:
        return None
    found: dict[str, Path] = {}
    for one in ordered:  # of two the newer one stays
        name = _name(records[one])
        if name is not None and _is_alike(records[one], records[own[-1]]):
            found[name] = one
    cards = {name: scorecard.read(found[name]) for name in ("base", *UNTRAINED) if name in found}
    base = cards.pop("base", None)
    return Measured(scorecard.read(own[-1]), base, cards)


def _name(record: Record) -> str | None:
    """Name the model of a scorecard; ``None`` of adapters and of production."""
    conditions, adapter = record["conditions"], record["adapter"]
    if adapter is None:
        is_base = isinstance(conditions, dict) and not conditions.get("num_fewshot")
        return "base" if is_base else FEW_SHOT
    return str(adapter) if adapter in BASELINES else None


def _is_alike(record: Record, own: Record) -> bool:
    """Tell whether a model was measured as an adapter was, but for what it is told by."""
    return record["base"] == own["base"] and _shared(record) == _shared(own)


def _shared(record: Record) -> Record:
    conditions = record["conditions"]
    assert isinstance(conditions, dict)
    return {name: value for name, value in conditions.items() if name not in TOLD_BY}
