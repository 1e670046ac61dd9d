"""Write an adapter's model card: what it is, what it learned from and how, its scores, its limits.

All of it comes from the adapter's manifest and from scorecards; what is in neither is not said.
"""

import json
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

from components import markdown
from components.export import plain, usage
from components.export.measured import Measured
from components.schema import Json
from components.scorecard import CONSTANT, FEW_SHOT, UNTRAINED, WHOLE_ANSWER, Score, Scorecard

Kind: TypeAlias = Literal["peft", "merged", "gguf"]

Table: TypeAlias = Mapping[str, Json]

UNMEASURED = (
    "Not measured when this card was written. The copies that are registered or exported have a "
    "card with the scores of then."
)

LIMITS = (
    "It learned one application's requests; of others nothing was measured.",
    "Its scores are those of a holdout of the same traffic, at the precision and on the machine "
    "above; another precision, server or way of writing prompts may score otherwise.",
    "Its rows come from logs: what users and the model before it got wrong may be in them. "
    "Personal data was replaced as the workload's rules say, which finds most of it and not all.",
    "Nothing was measured of safety, bias or truthfulness beyond what the scores name.",
)


def write(
    made: Mapping[str, Json], config: Mapping[str, Json], found: Measured | None, kind: Kind
) -> str:
    """Write the card as Markdown with a front matter that model hubs read.

    Args:
        made: The adapter's manifest.
        config: PEFT's configuration of it.
        found: What was measured of it; ``None`` if nothing was.
        kind: What stands beside the card: the adapter, its base with it merged, or its GGUF.
    """
    name = f"{made['workload']} adapter {made['key']}"
    parts = [
        *_front(made, config, kind),
        f"# {markdown.plain(name)}",
        "",
        f"For the requests of the workload {markdown.code(str(made['workload']))}. Flywheel "
        "trained it on what an application logged and what people thought of the answers.",
        "",
        *_section("Base", _base(made, config)),
        *_section("Data", [*_data(_table(made["data"])), *_learned(made.get("learned"))]),
        *_section("Method", _method(_table(made["recipe"]), config)),
        *_section("Scores", _scores(found)),
        *_section("Use", usage.lines(made, config, kind)),
        *_section("Limits", [f"- {limit}" for limit in _limits(made)]),
        *_section("Made with", _environment(made)),
    ]
    return "\n".join(parts)


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _front(made: Mapping[str, Json], config: Mapping[str, Json], kind: Kind) -> list[str]:
    licence = str(made.get("licence") or "")
    library = {"peft": "peft", "merged": "transformers", "gguf": "llama.cpp"}[kind]
    tags = ["flywheel", *([str(config["peft_type"]).lower()] if kind != "merged" else [])]
    return [
        "---",
        f"base_model: {json.dumps(_base_name(config))}",
        f"library_name: {library}",
        *([f"license: {licence}"] if re.fullmatch(r"[a-z0-9.-]+", licence) else []),
        "pipeline_tag: text-generation",
        f"tags: [{', '.join(tags)}]",
        "---",
        "",
    ]


def _base_name(config: Mapping[str, Json]) -> str:
    """Give the name of the base; of a folder's path its last part, which says more elsewhere."""
    named = str(config["base_model_name_or_path"])
    return named.rstrip("/").rsplit("/", 1)[-1] if named.startswith("/") else named


def _base(made: Mapping[str, Json], config: Mapping[str, Json]) -> list[str]:
    licence = made.get("licence")
    said = (
        f"Licence, as the base's folder says: {markdown.code(str(licence))}."
        if licence
        else "Licence: the base's folder says none, so ask where it came from."
    )
    return [
        f"{markdown.code(_base_name(config))}, content hash `{made['base']}` (of weights, "
        f"configuration, tokenizer and chat template). {said} The adapter's own licence is up to "
        "whoever trained it.",
    ]


def _data(told: Table) -> list[str]:
    sides = [[name, f"{count:,}"] for name, count in _counts(told["rows"]).items() if count]
    kinds = [[kind, f"{count:,}"] for kind, count in _counts(told["answers"]).items()]
    return [
        f"Snapshot `{told['snapshot']}`, holdout version `{told['holdout_version']}`.",
        "",
        *markdown.table(["rows", "count"], sides),
        "",
        "What answers the training rows have (`preferences` and `labels` are answers that people "
        "judged, for DPO and its like):",
        "",
        *markdown.table(["kind of answer", "rows"], kinds),
    ]


def _learned(record: Json) -> list[str]:
    """Say which rows were not learned; older manifests don't know."""
    said = _table(record).get("said") if record else None
    return ["", *map(str, said)] if isinstance(said, list) else []


def _method(recipe: Table, config: Mapping[str, Json]) -> list[str]:
    knobs = [[name, markdown.code(json.dumps(value))] for name, value in sorted(recipe.items())]
    return [
        f"{method(config)}, with PEFT. The base itself stayed as it is.",
        "",
        *markdown.table(["setting", "value"], knobs),
    ]


def method(config: Mapping[str, Json]) -> str:
    """Name the method as its paper does, with its rank, its scale and where it was put."""
    where = f"on {_modules(config.get('target_modules'))}"
    match config["peft_type"]:
        case "LORA":
            kinds = [("rsLoRA", "use_rslora"), ("DoRA", "use_dora")]
            names = [name for name, knob in kinds if config.get(knob)] or ["LoRA"]
            scale = f"alpha {config['lora_alpha']}"
            return f"{' and '.join(names)} of rank {config['r']}, {scale}, {where}"
        case "ADALORA":
            return f"AdaLoRA of mean rank {config['target_r']}, {where}"
        case "LN_TUNING":
            return "Full fine-tuning: a trained copy of each weight is what PEFT loads"
        case other:
            return f"PEFT's {other} {where}"


def _modules(named: Json) -> str:
    if isinstance(named, list):
        names = {str(one).rpartition(".")[2] for one in named}  # of each layer there is one
        return ", ".join(markdown.code(name) for name in sorted(names))
    return markdown.code(str(named))


def _scores(found: Measured | None) -> list[str]:
    if found is None:
        return [UNMEASURED]
    own, base, baselines = found.adapter, found.base, _baselines(found)
    rows = [
        [
            f"{name.replace('_', ' ')}: {metric.meaning}",
            *(
                _share(card.scores.get(name)) if card else "not measured"
                for card in baselines.values()
            ),
            _share(base.scores.get(name)) if base else "not measured",
            _share(own.scores[name]),
            str(own.scores[name].n),
            str(_clusters(own, name)),
        ]
        for name, metric in own.metrics.items()
    ]
    settings = _table(own.conditions["settings"])
    numbers = own.conditions.get("computed_in")
    computed = f", computed in {numbers}" if numbers else ""  # older scorecards don't say
    return [
        *markdown.table(["score", *baselines, "base", "adapter", "n", "clusters"], rows),
        "",
        *_unbeaten(found),
        *[f"{line}.\n" for line in (own.window.sentences if own.window else [])],
        f"Mean ± standard error on holdout version `{own.conditions['holdout_version']}`, base in "
        f"{settings['precision']}{computed}, on {own.conditions.get('machine', 'a machine')}; "
        f"scorecard `{own.key}`. Beside it stand what needs no training: "
        f"{'; '.join(f'`{name}` is {UNTRAINED[name]}' for name in baselines)}.",
    ]


def _baselines(found: Measured) -> dict[str, Scorecard | None]:
    """List the baselines that are shown: those measured, and few-shot and a constant always."""
    always = {CONSTANT, FEW_SHOT}
    names = [name for name in UNTRAINED if name in found.baselines or name in always]
    return {name: found.baselines.get(name) for name in names}


def _unbeaten(found: Measured) -> list[str]:
    """Say which baselines score at least as high as the adapter where all must be right."""
    told: list[str] = []
    for name, card in found.baselines.items():
        for metric in WHOLE_ANSWER:
            ours, theirs = found.adapter.scores.get(metric), card.scores.get(metric)
            if not ours or not theirs or ours.value is None or theirs.value is None:
                continue
            if theirs.value >= ours.value:
                told.append(
                    f"- By {metric.replace('_', ' ')} the adapter does not beat {UNTRAINED[name]}, "
                    f"which scores {theirs.value:.1%}."
                )
    return [*told, ""] if told else []


def _clusters(card: Scorecard, metric: str) -> int:
    """Count what the measured requests belong to; those of one cluster are not independent."""
    return len({one.cluster_id for one in card.samples if one.scores.get(metric) is not None})


def _share(score: Score | None) -> str:
    if score is None or score.value is None:
        return "not measured"
    error = f" ± {score.stderr:.1%}" if score.stderr is not None else ""
    return f"{score.value:.1%}{error}"


def _limits(made: Mapping[str, Json]) -> list[str]:
    bound = plain.bound_to(_table(made["recipe"]))
    return [*([f"It is right on the base in {bound} only."] if bound else []), *LIMITS]


def _environment(made: Mapping[str, Json]) -> list[str]:
    told = _table(made["environment"])
    libraries = [[name, str(one)] for name, one in _table(told["libraries"]).items()]
    facts = [[name, str(told[name])] for name in ("python", "system", "device")]
    rows = [["flywheel", str(made["commit"])], *facts, *libraries]
    return markdown.table(["what", "which"], rows)


def _table(value: Json) -> Table:
    if not isinstance(value, dict):
        raise TypeError(f"an adapter's manifest holds {value!r} where a mapping belongs")
    return value


def _counts(value: Json) -> dict[str, int]:
    return cast("dict[str, int]", dict(_table(value)))
