"""Spend alpha over the looks at one holdout: a set that is asked every night loses its meaning.

Each challenger is judged on the same requests, so that sooner or later one passes by luck. Look k
may be wrong with a chance of alpha / (k (k + 1)) only; over all looks, however many, these sum to
alpha, and a sum bounds the chance of any false promotion whatever the dependence of the looks
(Boole's inequality). Challengers judged on the same requests are dependent in ways that nobody
knows, which is why the sharper boundaries for repeated looks at *one* comparison (Pocock, O'Brien
and Fleming; Lan and DeMets 1983) do not apply.

A look takes its share of what the looks before it have *left*, whatever policy they were under. So
the sum holds, too, where alpha or the planned number of looks is changed in between.
"""

import math
from collections.abc import Iterable

NOTHING = 1e-12
"""Less is what rounding leaves."""


def allowance(alpha: float, look: int, looks: int | None = None) -> float:
    """Give the chance of a false promotion that look number ``look`` may take.

    Args:
        alpha: The chance that any look at this holdout promotes a challenger that is no better.
        look: Which look it is, from 1.
        looks: How many were planned. They get equal shares, and there is nothing left for more;
            ``None`` plans for any number.

    Raises:
        ValueError: ``look`` is below 1.
    """
    if look < 1:
        raise ValueError(f"looks are counted from 1, found {look}")
    if looks is None:
        return alpha / (look * (look + 1))
    return alpha / looks if look <= looks else 0.0


def left(alpha: float, spent: Iterable[float]) -> float:
    """Give what looks have left of ``alpha``: 0 where they were given all of it, or more."""
    rest = alpha - math.fsum(spent)
    return rest if rest > NOTHING else 0.0


def share(left: float, look: int, looks: int | None = None) -> float:
    """Give what a look may take of what is left.

    It is the ``allowance`` where all looks before it were under the same policy: then alpha / k is
    left for look k, of which it takes one part in k + 1, or of ``looks`` planned ones their share.

    Args:
        left: What the looks before have left.
        look: Which look it is, from 1.
        looks: How many are planned by now.
    """
    if looks is None:
        return left / (look + 1)
    return left / (looks - look + 1) if look <= looks else 0.0
