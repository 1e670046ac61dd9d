"""Hold the gate's promises against simulated holdouts; ``python -m tests.benchmarks.gate``.

Challengers that are no better must pass no more often than alpha, also when 50 of them look at one
holdout; stated power must be the share that passes; intervals must hold the true lead 95 times in a
hundred. What a test says that takes the two models' answers, or the turns of a conversation, for
independent is shown beside it, on the same data.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import typer
from scipy import stats

from components.gate import inference, mcnemar, power, spending
from components.gate.pairs import Pairs
from tests import holdout_draws as draws

ALPHA, LOOKS = 0.05, 50
FIRST = spending.allowance(ALPHA, 1)
REQUESTS, CLUSTERS = 200, 80

SEED = 20


@dataclass(frozen=True, slots=True)
class Kind:
    """What is drawn, how many requests or conversations of it, and leads of interest.

    ``lead`` is one that so many see more often than not, ``margin`` that of a guard.
    """

    draw: Callable[[int, float, np.random.Generator], Pairs]
    size: int
    lead: float
    margin: float


KINDS = {
    "right or wrong": Kind(draws.answers, REQUESTS, 0.1, 0.1),
    "right or wrong in conversations": Kind(draws.conversations, CLUSTERS, 0.12, 0.1),
    "scores": Kind(draws.scores, REQUESTS, 0.014, 0.03),
    "scores in conversations": Kind(draws.scored_conversations, CLUSTERS, 0.03, 0.05),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, what simulation found, the bounds that it has to keep, and a peer's figure."""

    promise: str
    found: float
    low: float
    high: float
    peer: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether it lies within its bounds."""
        return self.low <= self.found <= self.high


def null(kind: str, count: int, slack: float = 0.0) -> Finding:
    """Judge challengers that are no better, each on a holdout of its own."""
    pairs = drawn(kind, 0.0, count)
    passed = share(inference.superiority(one)[1] <= FIRST for one in pairs)
    peer = f"unpaired {share(unpaired(one) <= FIRST for one in pairs):.4f}"
    if pairs[0].is_clustered:
        naive = share(turns_as_independent(one) <= FIRST for one in pairs)
        peer += f", turns as independent {naive:.4f}"
    bound = at_most(FIRST, count) + slack
    return Finding(f"false promotions, one look: {kind}", passed, 0, bound, peer)


def looks(count: int, slack: float = 0.0) -> Finding:
    """Let 50 challengers that are no better look at each holdout."""
    p_value = functools.cache(mcnemar.p_value)
    shares = np.array([spending.allowance(ALPHA, look) for look in range(1, LOOKS + 1)])
    generator = np.random.default_rng(SEED)
    spent, unspent = 0, 0
    for _ in range(count):
        wins, losses = draws.challengers(REQUESTS, LOOKS, generator)
        p_values = np.array(
            [p_value(int(won), int(lost)) for won, lost in zip(wins, losses, strict=True)]
        )
        spent += bool((p_values <= shares).any())
        unspent += bool((p_values <= FIRST).any())
    promise = f"false promotions, any of {LOOKS} looks at one holdout"
    peer = f"without spending {unspent / count:.4f}"
    return Finding(promise, spent / count, 0, at_most(ALPHA, count) + slack, peer)


def powerful(kind: str, count: int, slack: float = 0.0) -> Finding:
    """Judge challengers that are better, and compare how many pass with what was foretold."""
    lead = KINDS[kind].lead
    pairs = drawn(kind, lead, count)
    passed = share(inference.superiority(one)[1] <= FIRST for one in pairs)
    n = round(float(np.mean([one.n for one in pairs])))
    stated = power.chance(long_run(kind), n, FIRST)
    beside = share(unpaired(one) <= FIRST for one in pairs)
    return Finding(
        f"power at a lead of {100 * lead:g} points: {kind}",
        passed,
        stated - 0.03 - slack,
        stated + 0.03 + slack,
        f"stated {stated:.4f}, unpaired {beside:.4f}",
    )


def covering(kind: str, count: int, slack: float = 0.0) -> Finding:
    """Ask how often a 95 % interval holds the true lead."""
    lead = KINDS[kind].lead
    pairs = drawn(kind, lead, count)
    found = [inference.infer(one).interval(0.025) for one in pairs]
    held = share(low <= lead <= high for low, high in found)
    beside = share(abs(one.difference - lead) <= unpaired_width(one) for one in pairs)
    peer = f"unpaired {beside:.4f}"
    return Finding(f"coverage of 95 %: {kind}", held, 0.93 - slack, 0.97 + slack, peer)


def guarded(kind: str, count: int, slack: float = 0.0) -> Finding:
    """Judge challengers that are worse by just the margin of a guard."""
    margin = KINDS[kind].margin
    pairs = drawn(kind, -margin, count)
    passed = share(inference.infer(one).above(-margin) <= FIRST for one in pairs)
    promise = f"guards passed at a loss of the margin, {100 * margin:g} points: {kind}"
    return Finding(promise, passed, 0, FIRST + 0.01 + slack)


def at_most(alpha: float, count: int) -> float:
    """Give what so many draws of a chance of just ``alpha`` exceed one time in forty."""
    return alpha + 2 * math.sqrt(alpha * (1 - alpha) / count)


def drawn(kind: str, lead: float, count: int) -> list[Pairs]:
    """Draw so many holdouts."""
    generator = np.random.default_rng(SEED)
    return [KINDS[kind].draw(KINDS[kind].size, lead, generator) for _ in range(count)]


def long_run(kind: str) -> power.Rates:
    """Read the spread off a holdout that is larger than any; the lead is known."""
    one = KINDS[kind]
    found = power.rates(one.draw(100_000, one.lead, np.random.default_rng(SEED)))
    return replace(found, difference=one.lead)


def unpaired(pairs: Pairs) -> float:
    """Compare the two means as if of different requests: one-sided p-value (Welch 1947)."""
    found: Any = stats.ttest_ind(pairs.ours, pairs.theirs, equal_var=False, alternative="greater")
    return float(found.pvalue)


def unpaired_width(pairs: Pairs) -> float:
    """Give the half width of the interval that goes with it."""
    return 1.96 * float(np.sqrt((pairs.ours.var() + pairs.theirs.var()) / pairs.n))


def turns_as_independent(pairs: Pairs) -> float:
    """Test as if every turn were a conversation of its own."""
    alone = Pairs(pairs.ours, pairs.theirs, np.arange(pairs.n))
    return inference.superiority(alone)[1]


def share(claims: Iterable[bool]) -> float:
    """Give the share of the claims that are true."""
    return float(np.mean([bool(claim) for claim in claims]))


def main(count: int = 10_000, intervals: int = 2_000) -> None:
    """Print every promise with what was simulated; end with 1 if one was not kept.

    Args:
        count: Holdouts drawn for each promise about passing.
        intervals: Holdouts drawn for each promise about an interval or a guard.
    """
    kept = say(looks(count))
    for kind in KINDS:
        for measure, draws_of_each in (
            (null, count),
            (powerful, count),
            (covering, intervals),
            (guarded, intervals),
        ):
            kept &= say(measure(kind, draws_of_each))
    sys.exit(0 if kept else 1)


def say(one: Finding) -> bool:
    """Print a promise with what was found; tell whether it was kept."""
    bounds = f"{max(0, one.low):.3f} to {one.high:.3f}"
    said = "kept" if one.is_kept else "BROKEN"
    typer.echo(f"{one.promise:<78} {one.found:.4f} of {bounds} {said:<6} {one.peer}")
    return one.is_kept


if __name__ == "__main__":
    typer.run(main)
