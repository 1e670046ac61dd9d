"""Write an adapter's model card: data, method, scores, limits and use."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from components import scorecard
from components.models import adapter_folder
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
from components.store import output_folders
from components.store.manifest import AdapterManifest, ScorecardManifest

MODEL_CONDITIONS = ("num_fewshot", "examples", "baseline", "baseline_version")
"""Conditions in which few-shot and the baselines differ from the adapter."""


@dataclass(frozen=True, slots=True)
class AdapterScores:
    """An adapter's newest scorecard, and others under equal conditions.

    ``base`` is its base's, ``baselines`` are those of few-shot and of untrained baselines by name.
    """

    adapter: Scorecard
    base: Scorecard | None
    baselines: Mapping[str, Scorecard] = field(default_factory=dict[str, Scorecard])


def newest_scores(key: str, folders: Iterable[Path]) -> AdapterScores | None:
    """Return an adapter's newest scores on the holdout; ``None`` if there are none.

    ``folders`` are scorecards, finished or not.

    Raises:
        ValueError: A scorecard was changed since it was finished.
    """
    finished = [
        (path, ScorecardManifest.read(path)) for path in folders if output_folders.fetch(path)
    ]
    records = {path: record for path, record in finished if record.task == HOLDOUT}
    ordered = sorted(records, key=lambda path: records[path].age)
    own = [path for path in ordered if records[path].adapter == key]
    if not own:
        return None
    newest: dict[str, Path] = {}
    for path in ordered:  # a newer one replaces an older one
        name = _model_name(records[path])
        if name is not None and _conditions(records[path]) == _conditions(records[own[-1]]):
            newest[name] = path
    cards = {name: scorecard.read(newest[name]) for name in ("base", *UNTRAINED) if name in newest}
    base = cards.pop("base", None)
    return AdapterScores(scorecard.read(own[-1]), base, cards)


def _model_name(record: ScorecardManifest) -> str | None:
    """Return the name of a scorecard's model; ``None`` for adapters and production."""
    if record.adapter is None:
        return FEW_SHOT if record.conditions.get("num_fewshot") else "base"
    return record.adapter if record.adapter in BASELINES else None


def _conditions(record: ScorecardManifest) -> tuple[str, Mapping[str, Json]]:
    shared = record.conditions.keys() - {*MODEL_CONDITIONS}
    return record.base, {name: record.conditions[name] for name in shared}


Kind: TypeAlias = Literal["peft", "merged", "gguf"]


def write_card(
    adapter: AdapterManifest, config: Mapping[str, Json], scores: AdapterScores | None, kind: Kind
) -> str:
    """Return the card as Markdown with a front matter that model hubs read.

    Args:
        adapter: The adapter's manifest.
        config: Its PEFT configuration.
        scores: Its scores; ``None`` if not measured.
        kind: The form of the card's folder: the adapter, a merged model, or GGUF.
    """
    baselines = _baselines(scores) if scores else {}
    return templates.render(
        "components/register/card.md.j2",
        adapter=adapter,
        config=config,
        kind=kind,
        base_name=_base_name(config),
        licence_is_id=bool(re.fullmatch(r"[a-z0-9.-]+", adapter.licence or "")),
        learned=(adapter.learned or {}).get("said"),
        method=_method(config),
        modules=_modules(config),
        measured=scores,
        baselines=baselines,
        untrained=UNTRAINED,
        scores=_scores(scores, baselines) if scores else [],
        unbeaten=_unbeaten(scores) if scores else [],
        bound_to=adapter_folder.required_precision(adapter.recipe),
    )


def _base_name(config: Mapping[str, Json]) -> str:
    named = str(config["base_model_name_or_path"])
    # A path of this machine is meaningless elsewhere, the folder's name is not.
    return named.rstrip("/").rsplit("/", 1)[-1] if named.startswith("/") else named


def _method(config: Mapping[str, Json]) -> str:
    """Return the method's name in its paper, with its rank and its scale."""
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


def _scores(measured: AdapterScores, baselines: Mapping[str, Scorecard | None]) -> list[list[str]]:
    own, others = measured.adapter, [*baselines.values(), measured.base]
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


def _baselines(measured: AdapterScores) -> dict[str, Scorecard | None]:
    """Return the baselines to show: all measured ones, and always few-shot and constant."""
    always = {CONSTANT, FEW_SHOT}
    names = [name for name in UNTRAINED if name in measured.baselines or name in always]
    return {name: measured.baselines.get(name) for name in names}


def _unbeaten(measured: AdapterScores) -> list[str]:
    """Return sentences on baselines that score at least as high on the whole answer."""
    sentences: list[str] = []
    for name, card in measured.baselines.items():
        for metric in WHOLE_ANSWER:
            ours, theirs = measured.adapter.scores.get(metric), card.scores.get(metric)
            if not ours or not theirs or ours.value is None or theirs.value is None:
                continue
            if theirs.value >= ours.value:
                sentences.append(
                    f"By {metric.replace('_', ' ')} the adapter does not beat {UNTRAINED[name]}, "
                    f"which scores {theirs.value:.1%}."
                )
    return sentences


def _clusters(card: Scorecard, metric: str) -> int:
    measured = (sample for sample in card.samples if sample.scores.get(metric) is not None)
    return len({sample.cluster_id for sample in measured})


def _share(score: Score | None) -> str:
    if score is None or score.value is None:
        return "not measured"
    error = f" ± {score.stderr:.1%}" if score.stderr is not None else ""
    return f"{score.value:.1%}{error}"
