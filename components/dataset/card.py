"""Write a snapshot's card: a README.md that says what is in it, what is not, and where it is from.

It begins as the cards of Hugging Face do, so that ``datasets.load_dataset`` opens the folder. It
holds no time and no path of the machine that made it: equal snapshots have equal cards. Names that
come from traffic (clients, labels) stand in code, where they can't become markup.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components import markdown
from components.client_shares import ALWAYS, ClientShares
from components.dataset import pictures
from components.dataset.figures import SIDES, Count, Figures
from components.schema import Json

NAME = "README.md"
SPLITS = {"train": "train", "validation": "validation", "holdout": "test"}
"""What the sides are called there."""

MOST_ROWS = 25
"""Longer tables are cut; the Parquet files have the rest."""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write(
    folder: Path,
    figures: Figures,
    *,
    workload_id: str,
    holdout_version: str,
    config: Mapping[str, Json],
    lineage: Mapping[str, str],
) -> None:
    """Write the card and its pictures into a snapshot's folder.

    Args:
        folder: The snapshot, its Parquet files written.
        figures: What is counted in it.
        workload_id: The workload.
        holdout_version: The version of what is measured on.
        config: What it was curated with.
        lineage: What else went into it, a word for each: base, tokenizer, prompt format.
    """
    parts = [
        _front_matter(workload_id, figures),
        [f"# {markdown.plain(workload_id)}: snapshot {folder.name}", "", _summary(figures)],
        _sides(figures, holdout_version, config),
        _verdicts(figures),
        _found(figures),
        *(
            _spread(title, counts)
            for title, counts in (
                ("Sources", figures.sources),
                ("Clients", figures.clients),
            )
        ),
        _client_shares(figures, config),
        *(
            _spread(title, counts)
            for title, counts in (
                ("Labels", figures.labels),
                ("Feedback", figures.feedback),
            )
        ),
        _preferences(figures),
        _redactions(figures, config),
        _near(figures),
        _lengths(figures),
        _pictures(folder, figures),
        _origin(config, lineage),
    ]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def _front_matter(workload_id: str, figures: Figures) -> list[str]:
    total = sum(figures.sides.values())
    size = next((name for most, name in SIZES if total < most), "n>1M")
    files = [
        line
        for side, split in SPLITS.items()
        if figures.sides.get(side)
        for line in (f"  - split: {split}", f"    path: {side}.parquet")
    ]
    return [
        "---",
        f"pretty_name: {json.dumps(workload_id)}",
        "task_categories:",
        "- text-generation",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *files,
        "---",
    ]


def _summary(figures: Figures) -> str:
    first, last = figures.days
    logged = f"on {first}" if first == last else f"from {first} to {last}"
    kept, judged = sum(figures.sides.values()), sum(figures.verdicts.values())
    return (
        f"{kept:,} examples from {judged:,} interactions, logged {logged} (UTC). One row is one "
        "request with the answer to learn; `prompt` and `completion` are the text that the model "
        "reads and writes, the other columns say where it came from."
    )


def _sides(figures: Figures, holdout_version: str, config: Mapping[str, Json]) -> list[str]:
    total = sum(figures.sides.values())
    rows = [
        [
            side,
            f"{figures.sides[side]:,}",
            f"{figures.dependent[side]:,}",
            markdown.share(figures.sides[side], total),
        ]
        for side in SIDES
        if side in figures.sides
    ]
    return [
        "## Sides",
        "",
        *markdown.table(["side", "examples", "clusters", "share"], rows),
        "",
        "Examples of one cluster share a conversation, a user or what else ties them; the gate "
        f"counts clusters. The largest has {figures.largest_cluster:,} examples on all sides. An "
        "id on more than a third of the interactions (and on more than 20) names neither a "
        "conversation nor a user.",
        "",
        f"Holdout version `{holdout_version}`. A row keeps its side for ever; a holdout that grows "
        "is a new version, and scores of different versions are not comparable.",
        *_capped(config),
    ]


def _capped(config: Mapping[str, Json]) -> list[str]:
    cap = config.get("holdout_per_cluster")
    if not isinstance(cap, int):
        return []
    return [
        "",
        f"Of a cluster at most {cap:,} of the held-out requests are tested on "
        f"(`holdout_per_cluster: {cap}`); the others (`over_cluster_cap`) are on no side, and the "
        "holdout is another version with another cap.",
    ]


def _verdicts(figures: Figures) -> list[str]:
    total = sum(figures.verdicts.values())
    ordered = sorted(figures.verdicts.items(), key=lambda one: (one[0] != "kept", -one[1], one[0]))
    rows = [
        [markdown.code(name), f"{count:,}", markdown.share(count, total)] for name, count in ordered
    ]
    return [
        "## Why rows are in and out",
        "",
        *markdown.table(["verdict", "interactions", "share"], rows),
    ]


def _found(figures: Figures) -> list[str]:
    if not figures.found:
        return []
    rows = [
        [markdown.code(one.rule), f"{one.interactions:,}", one.disposition] for one in figures.found
    ]
    return [
        "What rules found and did not drop:",
        "",
        *markdown.table(["rule", "interactions", "done"], rows),
    ]


def _preferences(figures: Figures) -> list[str]:
    if not figures.fates:
        return []
    wanted = figures.preferences
    judged = wanted.longer_won + wanted.shorter_won
    said = (
        f"{wanted.pairs:,} pairs to learn (`preferences.parquet`), {wanted.held_pairs:,} held out "
        f"(`holdout_preferences.parquet`), {wanted.labels:,} labelled answers "
    )
    won = (
        f"; in {markdown.share(wanted.longer_won, judged)} the longer answer won" if judged else ""
    )
    rows = [[markdown.code(one.fate), f"{one.signals:,}"] for one in figures.fates]
    return [
        "## What people's feedback came to",
        "",
        f"{said}(`labels.parquet`){won}.",
        "",
        *markdown.table(["fate", "signals"], rows),
    ]


def _redactions(figures: Figures, config: Mapping[str, Json]) -> list[str]:
    rows = [
        [
            markdown.code(one.kind),
            *(f"{n:,}" for n in (one.interactions, one.distinct_values, one.replacements)),
        ]
        for one in figures.redactions
    ]
    if not rows:
        return ["## Redaction", "", "Nothing was found to redact."]
    head = ["kind", "interactions", "values in a conversation, summed", "replacements"]
    match config.get("redaction"):
        case {"replace": "surrogates"}:
            standing = "In place of these values stand made-up ones of the same form (surrogates)."
        case _:
            standing = "In place of these values stand placeholders such as `<EMAIL_1>`."
    return ["## Redaction", "", *markdown.table(head, rows), "", standing]


def _spread(title: str, counts: Sequence[Count]) -> list[str]:
    if not counts:
        return []
    sides = [side for side in SIDES if any(getattr(one, side) for one in counts)]
    shown, rest = counts[:MOST_ROWS], counts[MOST_ROWS:]
    rows = [
        [markdown.code(one.name), *(f"{getattr(one, side):,}" for side in sides)] for one in shown
    ]
    if rest:
        sums = (f"{sum(getattr(one, side) for one in rest):,}" for side in sides)
        rows.append([f"{len(rest):,} others", *sums])
    return [f"## {title}", "", *markdown.table([title.lower().removesuffix("s"), *sides], rows)]


def _client_shares(figures: Figures, config: Mapping[str, Json]) -> list[str]:
    if len(figures.clients) < 2:
        return []
    shares = ClientShares.model_validate(config.get("clients", {}))
    return [
        "An answer, a correction or a thumb of one client decides nothing about another's rows. A "
        "client that came after the first has at most "
        f"{shares.holdout:.0%} of the holdout and of the validation side (more is "
        f"`over_client_holdout`) and {shares.train:.0%} of the training side "
        f"(`over_client_train`), or {ALWAYS} requests where that is more; what a snapshot has had "
        "stays. Its held-out rows displace at most "
        f"{shares.displaced:.0%} of what a client before it trains on; where it would be more, "
        "they are left out (`displaces_other_client`).",
    ]


def _near(figures: Figures) -> list[str]:
    near = figures.clusters
    if not near.clusters:
        return []
    return [
        "## Near-duplicates",
        "",
        f"{near.requests:,} requests have near-duplicates, in {near.clusters:,} clusters; the "
        f"largest has {near.largest:,}. No cluster has examples on two sides (checked).",
    ]


def _lengths(figures: Figures) -> list[str]:
    rows = [
        [f"{side}, {part}", *_quantiles(counted)]
        for side, lengths in figures.lengths.items()
        for part, counted in (("prompt", lengths.prompts), ("answer", lengths.answers))
        if counted
    ]
    if not rows:
        return ["## Lengths", "", "Not counted: the base has no `tokenizer.json`."]
    head = ["tokens", "sum", "mean", "median", "95 %", "longest"]
    return [
        "## Lengths",
        "",
        *markdown.table(head, rows),
        "",
        "Counted with the base's tokenizer, without the marks that its chat template adds.",
    ]


def _quantiles(counted: Sequence[int]) -> list[str]:
    values = np.array(counted, np.int64)
    middle, most = np.quantile(values, [0.5, 0.95], method="nearest")
    figures = (values.sum(), round(float(values.mean())), middle, most, values.max())
    return [f"{int(figure):,}" for figure in figures]


def _pictures(folder: Path, figures: Figures) -> list[str]:
    drawn = pictures.draw(figures, folder)
    return ["## Pictures", *(f"\n{title}:\n\n![{title}]({name})" for name, title in drawn)]


def _origin(config: Mapping[str, Json], lineage: Mapping[str, str]) -> list[str]:
    return [
        "## Where it comes from",
        "",
        *(f"- {name} {markdown.code(value)}" for name, value in lineage.items()),
        "",
        "Curated with:",
        "",
        "```json",
        json.dumps(config, indent=2, sort_keys=True),
        "```",
        "",
        "`manifest.json` names the files with their hashes, the commit and the time.",
    ]
