"""The exact sign-flip test: could the challenger's lead be chance, clusters taken as they are?

Were the two models equally good, each cluster's lead could as well have had the other sign (Fisher
1935, The Design of Experiments, section 21). Flipping whole clusters keeps what hangs together
together. On right and wrong answers without clusters this is the exact McNemar test.
"""

import numpy as np
from numpy.typing import NDArray

from components.gate.pairs import Floats

RANGE = 1 << 15
"""Leads are counted in whole steps, at most this many in all: finer ones would not move a p-value
that is read to three digits, and the test stays exact, since rounding treats both signs alike."""

FLOATING = 1e-9
"""Sums of scores that differ by less are equal."""


def p_value(sums: Floats) -> float:
    """Give the chance of a total lead at least this large if every cluster's sign were a coin.

    One-sided: small when the challenger is ahead. Every sign pattern is counted, none is drawn, by
    the shift algorithm (Streitberg and Roehmel 1986; Pagano and Tritchler 1983, JASA 78:435).

    Args:
        sums: By how much the challenger is ahead in each cluster.
    """
    steps = _steps(sums)
    total = int(steps.sum())
    weights = np.abs(steps)
    reach = int(weights.sum())
    if reach == 0:
        return 1.0
    # With every sign flipped at random, S = 2 * (weights of the plus signs) - reach.
    chances = np.ones(1)
    for weight in np.sort(weights[weights > 0]):
        longer = np.zeros(len(chances) + int(weight))
        longer[: len(chances)] = chances
        longer[int(weight) :] += chances
        chances = longer / 2
    least = (total + reach) // 2
    return float(min(1.0, chances[least:].sum()))


def _steps(sums: Floats) -> NDArray[np.int64]:
    """Express the leads in whole steps: ones where all are whole, else a share of their sum."""
    reach = float(np.abs(sums).sum())
    whole = np.rint(sums)
    if reach <= RANGE and bool((np.abs(sums - whole) < FLOATING).all()):
        return whole.astype(np.int64)
    return np.rint(sums * (RANGE / reach)).astype(np.int64)
