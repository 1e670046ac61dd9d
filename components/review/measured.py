"""Read how the models that were measured answered each request."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components import manifest, scorecard
from components.scorecard import BASELINES, HOLDOUT, Scorecard


@dataclass(frozen=True, slots=True)
class Measured:
    """How many models were measured on a request, and how many of them were right."""

    models: int
    right: int


def read(root: Path, metric: str) -> Mapping[str, Measured]:
    """Count models by example, of the newest state of the holdout that any was measured on.

    Args:
        root: The folder of the workload's scorecards; it need not exist.
        metric: Which score says that an answer is right.
    """
    folders = [path for path in sorted(root.glob("*")) if _is_of_the_holdout(path)]
    cards = {folder: scorecard.read(folder) for folder in folders}
    if not cards:
        return {}
    newest = max(folders, key=lambda path: (str(manifest.read(path)["created_at"]), path.name))
    version = cards[newest].conditions.get("holdout_version")
    same = [card for card in cards.values() if card.conditions.get("holdout_version") == version]
    return _count(same, metric)


def _is_of_the_holdout(folder: Path) -> bool:
    """Tell whether a scorecard is of a language model on the holdout, and not of a baseline."""
    record = manifest.read(folder) if manifest.is_finished(folder) else {}
    return record.get("task") == HOLDOUT and record.get("adapter") not in BASELINES


def _count(cards: list[Scorecard], metric: str) -> dict[str, Measured]:
    """Count each model once: the last card of those that were made of one model."""
    latest = {(one.base, one.adapter, str(one.conditions.get("num_fewshot"))): one for one in cards}
    scores: dict[str, list[float]] = defaultdict(list)
    for card in latest.values():
        for sample in card.samples:
            value = sample.scores.get(metric)
            if value is not None:
                scores[sample.example_id].append(value)
    return {
        example_id: Measured(len(values), sum(value == 1 for value in values))
        for example_id, values in scores.items()
    }
