"""Hold the gate's promises against simulated holdouts; ``python -m tests.benchmarks.gate``.

Challengers that are no better must pass no more often than the level, whatever the shape of their
leads: many small gains beside rare large losses, conversations that are longer where they are
lost. So with guards at their margin, with slices, with 50 looks at one holdout, and with another
look at what was best once a holdout has doubled. Stated power must be the share that passes. Beside
each figure stands what the test by sign flips finds, which takes for granted that leads are
symmetric when the models are equally good.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import product

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import stats

from components.gate import paired_scores, significance
from components.gate.paired_scores import Floats
from components.gate.policy import Policy
from components.scorecard import HOLDOUT
from components.store.ledger import Holdout, HoldoutLog, HoldoutRows, HoldoutUse, SealedPolicy
from flows import preregistration
from tests.support import holdout_draws as draws
from tests.support.holdout_draws import Draw, Drawn

ALPHA, LOOKS = 0.05, 50
FIRST = significance.allowance(ALPHA, 1)
SLICES = 10
REPEATS = 6
DAYS, DOUBLINGS = 365, 6
OFTEN = 0.3
"""So many looks of a year are at the favourite so far."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FLIPS = 2_000
SEED = 20
CHUNK = 1_000
"""Holdouts whose signs are flipped at once."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is drawn, how many requests or conversations of it, and leads of interest.

    ``lead`` is one that so many see more often than not (``None``: not looked at), ``margin`` that
    of a guard.
    """

    draw: Draw
    size: int
    margin: float
    lead: float | None = None


KINDS = {
    "right or wrong, n = 60": Kind(draws.answers(draws.DIFFERING), 60, 0.1, 0.2),
    "right or wrong, n = 200": Kind(draws.answers(draws.DIFFERING), 200, 0.1, 0.1),
    "right or wrong, n = 600": Kind(draws.answers(draws.DIFFERING), 600, 0.05, 0.06),
    "right or wrong, rarely different, n = 200": Kind(draws.answers(0.1), 200, 0.1, 0.06),
    "right or wrong, 5 % in pairs, 200": Kind(draws.twins, 200, 0.1, 0.1),
    "right or wrong, 5 % in pairs, 600": Kind(draws.twins, 600, 0.05, 0.06),
    "conversations of 1 to 6, 80": Kind(draws.conversations, 80, 0.1, 0.16),
    "conversations of 1 to 6, 300": Kind(draws.conversations, 300, 0.05, 0.07),
    "scores, n = 200": Kind(draws.scores, 200, 0.05, 0.033),
    "scores, n = 1000": Kind(draws.scores, 1000, 0.02, 0.007),
    "scores in conversations, 80": Kind(draws.scored_conversations, 80, 0.1, 0.12),
    "scores in conversations, 300": Kind(draws.scored_conversations, 300, 0.05, 0.035),
    "skewed scores, n = 60": Kind(draws.skewed, 60, 0.05),
    "skewed scores, n = 200": Kind(draws.skewed, 200, 0.05),
    "skewed scores, n = 1000": Kind(draws.skewed, 1000, 0.05),
    "1 turn or 10 lost, 80": Kind(draws.losing(10), 80, 0.05),
    "1 turn or 10 lost, 400": Kind(draws.losing(10), 400, 0.05),
    "1 turn or 20 lost, 80": Kind(draws.losing(20), 80, 0.05),
    "1 turn or 20 lost, 400": Kind(draws.losing(20), 400, 0.05),
    "rare lost conversations, 80": Kind(draws.catastrophes, 80, 0.05),
    "rare lost conversations, 400": Kind(draws.catastrophes, 400, 0.05),
    "1 to 40 turns, long ones worse, 200": Kind(draws.worsening(None), 200, 0.1, 0.16),
    "1 to 40 turns, capped at 1, 200": Kind(draws.worsening(1), 200, 0.1, 0.16),
    "1 to 40 turns, capped at 2, 200": Kind(draws.worsening(2), 200, 0.1, 0.16),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, what simulation found, the bounds that it has to keep, and the old test's."""

    promise: str
    found: float
    low: float
    high: float
    peer: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it lies within its bounds."""
        return self.low <= self.found <= self.high


def ahead(drawn: Drawn, level: float | Floats = FIRST) -> Flags:
    """Tell which holdouts show that the challenger is ahead, as ``inference.superiority``."""
    if drawn.is_binary and not drawn.is_clustered:
        return mcnemar(drawn) <= level
    return within(drawn, 0.0, level)


def within(drawn: Drawn, margin: float, level: float | Floats = FIRST) -> Flags:
    """Tell which holdouts show that the challenger is not behind by the margin."""
    return paired_scores.wealth_reached(drawn.sums, drawn.sizes, drawn.largest, -margin, level)


def mcnemar(drawn: Drawn) -> Floats:
    """Return the p-values of exact McNemar tests (``mcnemar.p_value``)."""
    wins, losses = ((drawn.sums * sign > 0).sum(axis=0) for sign in (1, -1))
    return np.where(wins + losses > 0, stats.binom.sf(wins - 1, wins + losses, 0.5), 1.0)


def flipped(sums: Floats, level: float = FIRST) -> Flags:
    """Tell where the sign-flip test would show a lead; of independent answers it is McNemar's."""
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], (FLIPS, len(sums)))
    shares = [
        (signs @ part >= part.sum(axis=0) - 1e-9).mean(axis=0)
        for part in np.array_split(sums, max(1, sums.shape[1] // CHUNK), axis=1)
    ]
    return np.concatenate(shares) <= level


def null(kind: str, count: int) -> Finding:
    """Judge challengers that are no better, each on a holdout of its own."""
    drawn = draw(kind, 0.0, count)
    return at_most(f"no better passes: {kind}", FIRST, ahead(drawn), flipped(drawn.sums))


def guarded(kind: str, count: int) -> Finding:
    """Judge challengers that are worse by just the margin of a guard."""
    margin = KINDS[kind].margin
    drawn = draw(kind, -margin, count)
    beside = flipped(drawn.sums + margin * drawn.sizes)
    promise = f"guard passes a loss of its {100 * margin:g} points: {kind}"
    return at_most(promise, FIRST, within(drawn, margin), beside)


def sliced(kind: str, count: int) -> Finding:
    """Ask how often any of ten slices is called worse where none is, with Holm's correction."""
    drawn = draw(kind, 0.0, SLICES * count)  # the opponent's lead: it has the rare large losses
    level = ALPHA / SLICES  # Holm's first step, which decides whether any is
    found, beside = ahead(drawn, level), flipped(drawn.sums, level)
    promise = f"any of {SLICES} slices called worse: {kind}"
    return at_most(promise, ALPHA, _of_any(found), _of_any(beside))


def _of_any(slices: Flags) -> Flags:
    return np.logical_or.reduce(slices.reshape(SLICES, -1), axis=0)


def covering(kind: str, count: int) -> Finding:
    """Ask how often a 95 % interval of bets fails to hold the true lead."""
    lead = KINDS[kind].lead or 0.0
    drawn = draw(kind, lead, count)
    missed = within(drawn, -lead) | within(drawn.mirrored, lead)
    return at_most(f"95 % interval misses the true lead: {kind}", 2 * FIRST, missed)


def tango(kind: str, count: int) -> Finding:
    """Ask the same of Tango's interval, which is an approximation."""
    lead = KINDS[kind].lead or 0.0
    drawn = draw(kind, lead, count)
    wins, losses = ((drawn.sums * sign > 0).sum(axis=0) for sign in (1, -1))
    n = len(drawn.sums)
    b = (2 * n - wins + losses) * lead - wins - losses
    lost = (np.sqrt(b * b + 8 * n * losses * lead * (1 - lead)) - b) / (4 * n)
    z = (wins - losses - n * lead) / np.sqrt(n * (2 * lost + lead * (1 - lead)))
    missed = float((np.abs(z) > stats.norm.isf(FIRST)).mean())
    return Finding(f"95 % interval misses the true lead (Tango): {kind}", missed, 0.03, 0.07)


def powerful(kind: str, count: int, slack: float = 0.0) -> Finding:
    """Judge challengers that are better, and compare how many pass with what was foretold."""
    lead = KINDS[kind].lead or 0.0
    drawn = draw(kind, lead, count)
    stated = significance.power(
        long_run(kind, lead), round(float(drawn.sizes.sum(0).mean())), FIRST
    )
    return Finding(
        f"passes with a lead of {100 * lead:g} points: {kind}",
        float(ahead(drawn).mean()),
        stated - 0.05 - slack,
        stated + 0.08 + slack,
        float(flipped(drawn.sums).mean()),
    )


def looks(count: int) -> Finding:
    """Let 50 challengers that are no better look at each holdout: right and wrong answers."""
    shares, rng = spendings(), np.random.default_rng(SEED)
    spent, unspent = [], []
    for _ in range(count):
        p_values = one_sided(draws.challengers(200, LOOKS, rng))
        spent.append(bool((p_values <= shares).any()))
        unspent.append(bool((p_values <= FIRST).any()))
    promise = f"any of {LOOKS} looks passes one no better: right or wrong, n = 200"
    return at_most(promise, ALPHA, np.array(spent), np.array(unspent))


def favourite(size: int, before: int, redrawn: float, count: int) -> Finding:
    """Look again at the best of so many challengers, once their holdout has doubled.

    A share of its answers is redrawn, as those of its recipe when it is trained anew.
    """
    level, rng = numbered([size] * before + [2 * size])[-1], np.random.default_rng(SEED)
    found = np.zeros(count, dtype=bool)
    for run in range(count):
        leads = draws.challengers(2 * size, before + 1, rng)
        best = leads[:-1][one_sided(leads[:-1, :size]).argmin()]
        again = np.where(rng.random(2 * size) < redrawn, leads[-1], best)
        found[run] = one_sided(again[None])[0] <= level
    promise = f"best of {before} at {size} passes at {2 * size}, {redrawn:.0%} redrawn"
    return at_most(promise, FIRST, found)


@cache
def years(redrawn: float, count: int) -> Flags:
    """Look each day of a year in which the holdout doubles six times, often at the favourite.

    Return whether any look passed one that is no better: a row a year, a column a doubling.
    """
    sizes = (100 * 2 ** (DOUBLINGS * np.arange(DAYS) / DAYS)).astype(int).tolist()
    levels, rng = numbered(sizes), np.random.default_rng(SEED)
    found = np.zeros((count, DOUBLINGS), dtype=bool)
    for year in range(count):
        drawn = draws.challengers(sizes[-1], 2 * DAYS, rng)
        least, best = 2.0, 0
        for day, size in enumerate(sizes):
            is_favourite = day > 0 and rng.random() < OFTEN
            recipe = best if is_favourite else day
            leads = drawn[recipe, :size]
            if redrawn:
                leads = np.where(rng.random(size) < redrawn, drawn[DAYS + day, :size], leads)
            p_value = float(one_sided(leads[None])[0])
            found[year, day * DOUBLINGS // DAYS] |= p_value <= levels[day]
            if p_value < least or recipe == best:
                least, best = p_value, recipe
    return found


def yearly(redrawn: float, count: int) -> Finding:
    """Hold the doublings of such years against what each is promised."""
    promise = f"any look until a holdout has doubled, a year of these, {redrawn:.0%} redrawn"
    return at_most(promise, ALPHA, years(redrawn, count).ravel())


def whole_years(redrawn: float, count: int) -> Finding:
    """Hold such years as a whole against the sum of what their doublings are promised."""
    promise = f"any look in a year of {DOUBLINGS} doublings, {redrawn:.0%} redrawn"
    return at_most(promise, DOUBLINGS * ALPHA, np.logical_or.reduce(years(redrawn, count), axis=1))


def numbered(sizes: Sequence[int]) -> list[float]:
    """Return the level that a home has for each look, at a holdout that grows to these sizes."""
    policy, book, seals = Policy(), HoldoutLog(), list[SealedPolicy]()
    levels: list[float] = []
    for number, size in enumerate(sizes, start=1):
        held = Holdout("w", f"v{size}", HoldoutRows(size))
        book = HoldoutLog(seals, book.looks)
        if (under := book.sealed(held)) is None:
            under = SealedPolicy(number, "w", held.version, size, (), "p", "{}", ALPHA, NOW)
            seals.append(under)
        asked = HoldoutUse(
            *("w", f"c{number}", "o", HOLDOUT, "correct", "p", "{}", "a", held.version),
            *(size, size, (), NOW),
        )
        taken = preregistration.allot_use(book, under, policy, held, asked)
        book = HoldoutLog(seals, [*book.looks, taken])
        levels.append(taken.alpha)
    return levels


def one_sided(leads: NDArray[np.int8]) -> Floats:
    """Return exact McNemar's p-value of each row of leads."""
    wins, losses = ((leads * sign > 0).sum(axis=1) for sign in (1, -1))
    return stats.binom.sf(wins - 1, np.maximum(wins + losses, 1), 0.5)


def looks_by_bets(kind: str, count: int) -> Finding:
    """Let 50 challengers that are no better look at each holdout: scores or conversations."""
    found = np.zeros(count, dtype=bool)
    beside = np.zeros(count, dtype=bool)
    for look, share in enumerate(spendings(), start=1):
        drawn = draw(kind, 0.0, count, seed=SEED + look)
        found |= ahead(drawn, share)
        beside |= flipped(drawn.sums, share)
    promise = f"any of {LOOKS} looks passes one no better: {kind}"
    return at_most(promise, ALPHA, found, beside)


def carrying(kind: str, count: int) -> Finding:
    """Look at one challenger that is no better as its holdout doubles, and carry all bets on."""
    drawn = draw(kind, 0.0, count)
    whole = KINDS[kind].size
    ends = np.linspace(whole / 2, whole, REPEATS).astype(int).tolist()
    begun: list[tuple[float, Floats]] = []
    found, start = np.zeros(count, dtype=bool), 0
    for look, end in enumerate(ends, start=1):
        level = significance.allowance(ALPHA, look)
        begun = [(one, _staked(drawn, start, end, one, held)) for one, held in begun]
        begun.append((level, _staked(drawn, 0, end, level, 1.0)))
        for one, held in begun:
            found |= held >= (1 - paired_scores.ROUNDING) / one
        start = end
    return at_most(f"any of {REPEATS} looks at one challenger: {kind}", ALPHA, found)


def _staked(drawn: Drawn, start: int, end: int, level: float, held: Floats | float) -> Floats:
    part = slice(start, end)
    return paired_scores.wealth(
        drawn.sums[part], drawn.sizes[part], drawn.largest, 0.0, level, held
    )


def spendings() -> Floats:
    """Return the level of every look."""
    return np.array([significance.allowance(ALPHA, look) for look in range(1, LOOKS + 1)])


def at_most(promise: str, alpha: float, found: Flags, beside: Flags | None = None) -> Finding:
    """Hold a share against a promise, with two standard errors of so many draws."""
    bound = alpha + 2 * math.sqrt(alpha * (1 - alpha) / len(found))
    peer = None if beside is None else float(beside.mean())
    return Finding(promise, float(found.mean()), 0.0, bound, peer)


def draw(kind: str, lead: float, count: int, seed: int = SEED) -> Drawn:
    """Draw so many holdouts, with the gate's weights."""
    drawn = KINDS[kind].draw(KINDS[kind].size, count, lead, np.random.default_rng(seed))
    return drawn.weighted


def long_run(kind: str, lead: float) -> significance.Rates:
    """Return the rates that one large holdout would suggest."""
    one = draw(kind, lead, 20_000 // KINDS[kind].size)
    sums, sizes = one.sums.ravel(), one.sizes.ravel()
    differing = float((sums**2).sum() / sizes.sum())
    spread = float(((sums - sizes * lead) ** 2).sum() / sizes.sum())
    return significance.Rates(
        lead,
        differing,
        is_binary=one.is_binary,
        effect=spread / (differing - lead**2),
        size=float(sizes.mean()),
        clumping=float((sizes**2).sum() / sizes.sum()),
        largest=int(one.largest[0]),
        is_clustered=one.is_clustered,
    )


def promises(count: int) -> list[Callable[[], Finding]]:
    """List what is to be simulated, in the order of the README's tables."""

    def each(
        measure: Callable[[str, int], Finding], kinds: list[str]
    ) -> list[Callable[[], Finding]]:
        return [lambda kind=kind: measure(kind, count) for kind in kinds]

    kinds, better = [*KINDS], [kind for kind, one in KINDS.items() if one.lead is not None]
    small = [kind for kind, one in KINDS.items() if one.size <= 80]
    shaped = [kind for kind in kinds if "n = 200" in kind or kind.endswith("80")]
    plain = [kind for kind in better if kind.startswith("right or wrong, ") and "pairs" not in kind]
    return [
        *each(null, kinds),
        *each(guarded, kinds),
        *each(sliced, small),
        lambda: looks(count // 4),
        *each(lambda kind, number: looks_by_bets(kind, number // 4), shaped[2:]),
        *(
            lambda asked=asked: favourite(*asked, count)
            for asked in product((100, 200), (1, 10, 50), (0.0, 0.3))
        ),
        *(
            lambda measure=measure, redrawn=redrawn: measure(redrawn, count // 20)
            for measure, redrawn in product((yearly, whole_years), (0.0, 0.3))
        ),
        *each(carrying, kinds[4:]),
        *each(covering, kinds),
        *each(tango, plain),
        *each(powerful, better),
    ]


def main(count: int = 4_000) -> None:
    """Print every promise with what was simulated; end with 1 if one was not kept.

    Args:
        count: Holdouts drawn for each promise; a quarter of them for those about looks, a
            twentieth for years.
    """
    typer.echo(f"{'':<82} found  from    to      sign flips")
    broken = 0
    for promise in promises(count):
        one = promise()
        peer = "" if one.peer is None else f"{one.peer:.4f}"
        said = "kept" if one.is_kept else "BROKEN"
        bounds = f"{max(0, one.low):.4f}  {one.high:.4f}"
        typer.echo(f"{one.promise:<82} {one.found:.4f} {bounds}  {peer:<6} {said}")
        broken += not one.is_kept
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    typer.run(main)
