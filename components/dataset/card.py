"""Write a snapshot's card: a README.md with its contents, what was left out, and its origin.

It begins as the cards of Hugging Face do, so that ``datasets.load_dataset`` opens the folder. It
holds no time and no path of the machine that made it: equal snapshots have equal cards.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.client_shares import ALWAYS, ClientShares
from components.dataset import pictures
from components.dataset.figures import SIDES, Count, Figures
from components.pages import jinja, markdown
from components.schema import Json

NAME = "README.md"
SPLITS = {"train": "train", "validation": "validation", "holdout": "test"}
"""Hugging Face's name of each side."""

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
    examples = sum(figures.sides.values())
    first, last = figures.days
    verdicts = sorted(figures.verdicts.items(), key=lambda row: (row[0] != "kept", -row[1], row[0]))
    text = jinja.render(
        "dataset/card.md.j2",
        workload=workload_id,
        snapshot=folder.name,
        size=next((name for most, name in SIZES if examples < most), "n>1M"),
        splits=SPLITS,
        figures=figures,
        examples=examples,
        interactions=sum(figures.verdicts.values()),
        logged=f"on {first}" if first == last else f"from {first} to {last}",
        verdicts=verdicts,
        spread_table=_spread_table,
        holdout_version=holdout_version,
        config=config,
        clients=ClientShares.model_validate(config.get("clients", {})),
        always=ALWAYS,
        lengths=[
            [f"{side}, {part}", *_quantiles(counts)]
            for side, lengths in figures.lengths.items()
            for part, counts in (("prompt", lengths.prompts), ("answer", lengths.answers))
            if counts
        ],
        pictures=pictures.draw(figures, folder),
        lineage=lineage,
        curated_with=json.dumps(config, indent=2, sort_keys=True),
    )
    (folder / NAME).write_text(text, encoding="utf-8")


def _spread_table(title: str, counts: Sequence[Count]) -> str:
    sides = [side for side in SIDES if any(getattr(count, side) for count in counts)]
    shown, rest = counts[:MOST_ROWS], counts[MOST_ROWS:]
    rows = [
        [markdown.code(count.name), *(f"{getattr(count, side):,}" for side in sides)]
        for count in shown
    ]
    if rest:
        sums = (f"{sum(getattr(count, side) for count in rest):,}" for side in sides)
        rows.append([f"{len(rest):,} others", *sums])
    return markdown.table([title.lower().removesuffix("s"), *sides], rows)


def _quantiles(counts: Sequence[int]) -> list[str]:
    values = np.array(counts, np.int64)
    middle, most = np.quantile(values, [0.5, 0.95], method="nearest")
    figures = (values.sum(), round(float(values.mean())), middle, most, values.max())
    return [f"{int(figure):,}" for figure in figures]
