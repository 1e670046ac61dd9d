"""Holm's correction: several claims at once, with the chance of any false one bounded."""

from collections.abc import Sequence


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Give each p-value corrected for its company: below alpha, its claim holds at alpha.

    The chance that any true null of the family is rejected is at most alpha, whatever the
    dependence (Holm 1979, Scand. J. Statist. 6:65; adjusted as in Wright 1992, Biometrics 48:1005).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        found[i] = highest
    return found
