"""Decide which candidates go on, and which is the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """How a candidate stands at a rung, and how large its adapter is in parameters.

    ``losses`` are, by the number of a validation row, what it lost there, lower is better: what the
    target metric gave, less than it could, or the negative log-likelihood of the whole answer in
    nats. (Of a whole answer, not of a token: bases with other tokenizers write it in more tokens or
    fewer.) ``otherwise`` decides between equal means.
    """

    candidate: str
    losses: Mapping[int, float]
    size: int
    otherwise: float = 0.0


def ranking(standings: Sequence[Standing]) -> list[Standing]:
    """Order candidates, the best first; of those that tie with the best, the smallest comes first.

    Two tie when the better is better by no more than the standard error of the mean difference of
    their losses, row by row. A tie with a tie is none: after each place the best of the rest is
    looked for anew. That is Breiman's rule of one standard error (Classification and Regression
    Trees, 1984, section 3.4.3) on paired losses.

    Raises:
        ValueError: There is no row that all were measured on.
    """
    if standings and not set(standings[0].losses).intersection(*(one.losses for one in standings)):
        raise ValueError(
            "comparing candidates: no validation row was measured for all of them; a larger "
            "max_length would leave fewer out"
        )
    left = sorted(standings, key=lambda one: one.candidate)
    ranked: list[Standing] = []
    while left:
        means = {one.candidate: (_mean(one, left), one.otherwise) for one in left}
        best = min(left, key=lambda one: means[one.candidate])
        tied = [one for one in left if one is best or is_tied(best, one)]
        chosen = min(tied, key=lambda one: (one.size, *means[one.candidate]))
        ranked.append(chosen)
        left.remove(chosen)
    return ranked


def is_tied(better: Standing, worse: Standing) -> bool:
    """Tell whether the difference of two candidates is within its standard error."""
    rows = sorted(better.losses.keys() & worse.losses.keys())
    differences = [worse.losses[row] - better.losses[row] for row in rows]
    if len(differences) < 2:
        return False
    mean = math.fsum(differences) / len(differences)
    squares = math.fsum((one - mean) ** 2 for one in differences)
    return mean <= math.sqrt(squares / (len(differences) - 1) / len(differences))


def _mean(one: Standing, others: Sequence[Standing]) -> float:
    """Average over the rows that all have: what is longer than its ``max_length`` is left out."""
    rows = set(one.losses).intersection(*(other.losses for other in others))
    return math.fsum(one.losses[row] for row in rows) / len(rows)
