"""Write an adapter's model card: data, method, scores, limits, and how it is used."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from components import scorecard
from components.export import copy_adapter
from components.pages import templates
from components.schema import Json
from components.scorecard import (
    BASELINES,
    CONSTANT,
    FEW_SHOT,
    HOLDOUT,
    UNTRAINED,
    WHOLE_ANSWER,
    Score,
    Scorecard,
)
from components.store import manifest
from components.store.manifest import AdapterManifest, ScorecardManifest

Record = Mapping[str, Json]

TOLD_BY = ("num_fewshot", "examples", "baseline", "baseline_version")
"""Conditions in which few-shot and the baselines differ from the adapter."""


@dataclass(frozen=True, slots=True)
class AdapterScores:
    """An adapter's newest scorecard, and others that were made under equal conditions.

    ``base`` is its base's, ``baselines`` are those of few-shot and of what needs no language model.
    """

    adapter: Scorecard
    base: Scorecard | None
    baselines: Mapping[str, Scorecard] = field(default_factory=dict[str, Scorecard])


def newest_scores(key: str, folders: Iterable[Path]) -> AdapterScores | None:
    """Find the newest scorecard of an adapter; ``None`` if there is none.

    Args:
        key: The adapter's.
        folders: Those of scorecards, finished or not.

    Raises:
        ValueError: A scorecard that was found is not as it was finished.
    """
    records = {path: ScorecardManifest.read(path) for path in folders if manifest.is_finished(path)}
    records = {path: record for path, record in records.items() if record.task == HOLDOUT}
    ordered = sorted(records, key=lambda path: records[path].age)
    own = [path for path in ordered if records[path].adapter == key]
    if not own:
        return None
    found: dict[str, Path] = {}
    for one in ordered:  # of two the newer one stays
        name = _model_name(records[one])
        if name is not None and _is_alike(records[one], records[own[-1]]):
            found[name] = one
    cards = {name: scorecard.read(found[name]) for name in ("base", *UNTRAINED) if name in found}
    base = cards.pop("base", None)
    return AdapterScores(scorecard.read(own[-1]), base, cards)


def _model_name(record: ScorecardManifest) -> str | None:
    """Name the model of a scorecard; ``None`` of adapters and of production."""
    if record.adapter is None:
        return FEW_SHOT if record.conditions.get("num_fewshot") else "base"
    return record.adapter if record.adapter in BASELINES else None


def _is_alike(record: ScorecardManifest, own: ScorecardManifest) -> bool:
    """Tell whether a model was measured as an adapter was, but for what it is told by."""
    return record.base == own.base and _shared(record) == _shared(own)


def _shared(record: ScorecardManifest) -> Mapping[str, Json]:
    return {name: value for name, value in record.conditions.items() if name not in TOLD_BY}


Kind: TypeAlias = Literal["peft", "merged", "gguf"]

UNMEASURED = (
    "Not measured when this card was written. The copies that are registered or exported have a "
    "card with the scores of then."
)


def write_card(
    made: AdapterManifest, config: Mapping[str, Json], found: AdapterScores | None, kind: Kind
) -> str:
    """Write the card as Markdown with a front matter that model hubs read.

    Args:
        made: The adapter's manifest.
        config: PEFT's configuration of it.
        found: What was measured of it; ``None`` if nothing was.
        kind: What stands beside the card: the adapter, its base with it merged, or its GGUF.
    """
    baselines = _baselines(found) if found else {}
    return templates.render(
        "export/card.md.j2",
        made=made,
        config=config,
        kind=kind,
        base_name=_base_name(config),
        licence_is_id=bool(re.fullmatch(r"[a-z0-9.-]+", made.licence or "")),
        learned=(made.learned or {}).get("said"),
        method=_method(config),
        modules=_modules(config),
        measured=found,
        unmeasured=UNMEASURED,
        baselines=baselines,
        untrained=UNTRAINED,
        scores=_scores(found, baselines) if found else [],
        unbeaten=_unbeaten(found) if found else [],
        bound_to=copy_adapter.recipe_objection(made.recipe),
    )


def _base_name(config: Mapping[str, Json]) -> str:
    named = str(config["base_model_name_or_path"])
    # A path of this machine says nothing elsewhere; the folder's name does.
    return named.rstrip("/").rsplit("/", 1)[-1] if named.startswith("/") else named


def _method(config: Mapping[str, Json]) -> str:
    """Name the method as its paper does, with its rank and its scale."""
    match config["peft_type"]:
        case "LORA":
            kinds = [("rsLoRA", "use_rslora"), ("DoRA", "use_dora")]
            names = [name for name, knob in kinds if config.get(knob)] or ["LoRA"]
            return f"{' and '.join(names)} of rank {config['r']}, alpha {config['lora_alpha']}"
        case "ADALORA":
            return f"AdaLoRA of mean rank {config['target_r']}"
        case "LN_TUNING":
            return "Full fine-tuning: a trained copy of each weight is what PEFT loads"
        case other:
            return f"PEFT's {other}"


def _modules(config: Mapping[str, Json]) -> list[str]:
    named = config.get("target_modules")
    if config["peft_type"] == "LN_TUNING":
        return []
    if isinstance(named, list):
        return sorted({str(name).rpartition(".")[2] for name in named})  # each layer has its own
    return [str(named)]


def _scores(found: AdapterScores, baselines: Mapping[str, Scorecard | None]) -> list[list[str]]:
    own, others = found.adapter, [*baselines.values(), found.base]
    return [
        [
            f"{name.replace('_', ' ')}: {metric.meaning}",
            *(_share(card.scores.get(name)) if card else "not measured" for card in others),
            _share(own.scores[name]),
            str(own.scores[name].n),
            str(_clusters(own, name)),
        ]
        for name, metric in own.metrics.items()
    ]


def _baselines(found: AdapterScores) -> dict[str, Scorecard | None]:
    """List the baselines that are shown: those measured, and few-shot and a constant always."""
    always = {CONSTANT, FEW_SHOT}
    names = [name for name in UNTRAINED if name in found.baselines or name in always]
    return {name: found.baselines.get(name) for name in names}


def _unbeaten(found: AdapterScores) -> list[str]:
    """Name the baselines that score at least as high as the adapter on the whole answer."""
    sentences: list[str] = []
    for name, card in found.baselines.items():
        for metric in WHOLE_ANSWER:
            ours, theirs = found.adapter.scores.get(metric), card.scores.get(metric)
            if not ours or not theirs or ours.value is None or theirs.value is None:
                continue
            if theirs.value >= ours.value:
                sentences.append(
                    f"By {metric.replace('_', ' ')} the adapter does not beat {UNTRAINED[name]}, "
                    f"which scores {theirs.value:.1%}."
                )
    return sentences


def _clusters(card: Scorecard, metric: str) -> int:
    """Count the clusters of the measured requests; those of one cluster are not independent."""
    return len({one.cluster_id for one in card.samples if one.scores.get(metric) is not None})


def _share(score: Score | None) -> str:
    if score is None or score.value is None:
        return "not measured"
    error = f" ± {score.stderr:.1%}" if score.stderr is not None else ""
    return f"{score.value:.1%}{error}"
