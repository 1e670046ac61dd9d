"""Spend alpha over the looks at one holdout: a set that is asked every night loses its meaning.

Each challenger is judged on the same requests, so that sooner or later one passes by luck. Look k
may be wrong with a chance of alpha / (k (k + 1)) only; over all looks, however many, these sum to
alpha, and a sum bounds the chance of any false promotion whatever the dependence of the looks
(Boole's inequality). Challengers judged on the same requests are dependent in ways that nobody
knows, which is why the sharper boundaries for repeated looks at *one* comparison (Pocock, O'Brien
and Fleming; Lan and DeMets 1983) do not apply.
"""


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
