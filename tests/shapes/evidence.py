"""How many held-out requests of a shape decide, with its clusters and as if all were independent.

``python -m tests.shapes.evidence`` prints, for shapes in which people or questions come back, the
requests with which a lead of ten points is shown four times in five, and how often a challenger
that is no better passes though a person's requests are alike.
"""

import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from components.gate import significance
from components.gate.paired_scores import PairedScores
from tests.shapes import curation
from tests.shapes.recurring_shapes import SHAPES
from tests.support import warehouses

LEAD, LEVEL, POWER = 0.1, 0.025, 0.8
DIFFERING = 0.3
"""Share of the requests on which only one of two models is right."""

ALIKE = 0.5
"""Chance that a request has its person's result, not its own: their correlation."""

NAMES = (
    *("recurring-39", "recurring-33", "recurring-nameless", "recurring-of-2000", "popular"),
    *("one-user-of-10-percent", "one-user-of-30-percent", "one-user-of-36-percent"),
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def main(draws: int = 400, seed: int = 0) -> None:
    """Print a table, and end with 1 if a promise does not hold."""
    typer.echo("shape                    held out clusters  needed alone  ratio  false passes")
    broken = 0
    alone = _needed(np.ones(1000, np.int64), draws, np.random.default_rng(seed))
    for name in NAMES:
        sizes = _held_sizes(name)
        random = np.random.default_rng(seed)
        needed = _needed(sizes, draws, random)
        false = _share(sizes, int(sizes.sum()), 5 * draws, random, lead=0.0, alike=ALIKE)
        most = LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / (5 * draws))
        is_heavy = name.startswith("one-user")
        broken += false > most or (needed > 1.3 * alone and not is_heavy)
        typer.echo(
            f"{name:24}{int(sizes.sum()):9}{len(sizes):9}{needed:8.0f}{alone:6.0f}"
            f"{needed / alone:7.2f}{false:14.4f}"
        )
    if broken:
        raise typer.Exit(1)


def _held_sizes(name: str) -> Ints:
    """Return the number of held-out requests of each cluster of a shape."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with warehouses.connect(folder / "warehouse.duckdb") as con:
            kept = curation.curate(con, folder, SHAPES[name]).kept
    held = Counter(one.cluster for one in kept if one.side == "holdout")
    return np.array([*held.values()], np.int64)


def _needed(sizes: Ints, draws: int, random: np.random.Generator) -> float:
    """Return the requests that show the lead with a chance of ``POWER``, interpolated."""
    below, least = 0.0, 150
    while True:
        reached = _share(sizes, least, draws, random, lead=LEAD, alike=0.0)
        if reached >= POWER:
            return least * 1.15 ** ((POWER - reached) / (reached - below))
        below, least = reached, round(1.15 * least)


def _share(
    sizes: Ints,
    requests: int,
    draws: int,
    random: np.random.Generator,
    *,
    lead: float,
    alike: float,
) -> float:
    """Return the share of holdouts of about so many requests on which a challenger passes."""
    passes = 0
    for _ in range(draws):
        chosen = _like(sizes, requests, random)
        clusters = np.repeat(np.arange(len(chosen)), chosen)
        results = _results(len(clusters), lead, random)
        of_person = _results(len(chosen), lead, random)[clusters]
        leads = np.where(random.random(len(clusters)) < alike, of_person, results)
        ours, theirs = (leads > 0).astype(np.float64), (leads < 0).astype(np.float64)
        pairs = PairedScores(ours, theirs, clusters, bound=int(chosen.max()))
        passes += significance.superiority(pairs, LEVEL)[1] <= LEVEL
    return passes / draws


def _like(sizes: Ints, requests: int, random: np.random.Generator) -> Ints:
    """Return sizes of clusters in which a holdout of so many requests is like the shape's.

    A cluster of a twentieth or more keeps its share, as a heavy user does in a longer log.
    """
    largest, rest = int(sizes.max()), np.delete(sizes, sizes.argmax())
    heavy = round(requests * largest / sizes.sum()) if largest >= 0.05 * sizes.sum() else largest
    others = random.choice(rest, requests)
    others = others[: int(np.searchsorted(np.cumsum(others), requests - heavy)) + 1]
    return random.permutation(np.append(others, max(heavy, 1)))


def _results(count: int, lead: float, random: np.random.Generator) -> Floats:
    """Draw who alone is right: 1 for the challenger, -1 for the opponent, 0 for both or neither."""
    chances = [(DIFFERING - lead) / 2, 1 - DIFFERING, (DIFFERING + lead) / 2]
    return random.choice(np.array([-1.0, 0.0, 1.0]), count, p=chances)


if __name__ == "__main__":
    typer.run(main)
