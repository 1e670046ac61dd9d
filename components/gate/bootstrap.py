"""The BCa bootstrap of a mean difference: bias-corrected and accelerated, clusters drawn whole.

Source: Efron (1987), Better bootstrap confidence intervals, JASA 82:171 (eq. 2.3 for the ends, 6.6
for the acceleration by the jackknife); clusters are drawn as in Davison and Hinkley (1997), 3.8.
Resamples of few clusters spread too little, so the levels are widened to those of Student's t and
by the root of m / (m - 1) for m clusters (Hesterberg 2015, The American Statistician 69:371).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.gate.pairs import Floats, Pairs

DRAWS = 10_000
"""Resamples: at 95 % either end then stands on 250 of them."""

FEWEST = 25
"""Beyond the outermost so many resamples the tails are taken to be normal: late looks ask for
levels that no affordable number of resamples reaches."""

CERTAIN = 40.0
"""The deviate of what never happens, where all resamples are equal."""

EDGE = 1e-9

CHUNK = 4_000_000
"""Clusters drawn at once, so that memory does not grow with the holdout."""


@dataclass(frozen=True)
class Bootstrap:
    """The resampled mean differences, sorted, with what Efron corrects them by."""

    estimate: float
    draws: Floats
    bias: float
    acceleration: float
    clusters: int

    def end(self, tail: float) -> float:
        """Give the bound that the true mean falls below with a chance of ``tail``."""
        shifted = self.bias + self._widening * float(stats.t.ppf(tail, self._freedom))
        return self._quantile(self.bias + shifted / (1 - self.acceleration * shifted))

    def above(self, difference: float) -> float:
        """Give the p-value against a true mean of at most ``difference``.

        It is the tail for which ``end`` is just there.
        """
        shifted = self._deviate(difference) - self.bias
        bent = max(EDGE, 1 + self.acceleration * shifted)
        return float(stats.t.cdf((shifted / bent - self.bias) / self._widening, self._freedom))

    @property
    def _freedom(self) -> int:
        return max(1, self.clusters - 1)

    @property
    def _widening(self) -> float:
        return math.sqrt(self.clusters / self._freedom)

    def _quantile(self, deviate: float) -> float:
        edge, low, high, spread = self._edges()
        if deviate < -edge:
            return low + spread * (deviate + edge)
        if deviate > edge:
            return high + spread * (deviate - edge)
        return float(np.quantile(self.draws, float(stats.norm.cdf(deviate))))

    def _deviate(self, difference: float) -> float:
        edge, low, high, spread = self._edges()
        if spread == 0:
            return math.copysign(CERTAIN, difference - self.estimate)
        if difference < low:
            return (difference - low) / spread - edge
        if difference > high:
            return (difference - high) / spread + edge
        return float(stats.norm.ppf(_share_below(self.draws, difference)))

    def _edges(self) -> tuple[float, float, float, float]:
        """Give the deviate from where on tails are normal, the ends there, and their spread."""
        share = FEWEST / len(self.draws)
        low, high = (float(end) for end in np.quantile(self.draws, (share, 1 - share)))
        return float(stats.norm.isf(share)), low, high, float(self.draws.std())


def bootstrap(pairs: Pairs, seed: int, draws: int = DRAWS) -> Bootstrap:
    """Resample whole clusters with replacement and take the mean difference of each resample."""
    generator = np.random.default_rng(seed)
    clusters = len(pairs.sums)
    rows = max(1, CHUNK // clusters)
    means = np.concatenate(
        [
            _means(pairs, generator.integers(0, clusters, (min(rows, draws - start), clusters)))
            for start in range(0, draws, rows)
        ]
    )
    means.sort()
    bias = float(stats.norm.ppf(_share_below(means, pairs.difference)))
    return Bootstrap(pairs.difference, means, bias, _acceleration(pairs), clusters)


def _means(pairs: Pairs, drawn: NDArray[np.int64]) -> Floats:
    return pairs.sums[drawn].sum(axis=1) / pairs.sizes[drawn].sum(axis=1)


def _share_below(draws: Floats, value: float) -> float:
    """Give the share of resamples below ``value``, ties counted half; never quite 0 or 1."""
    before, through = (np.searchsorted(draws, value, side=side) for side in ("left", "right"))
    share = (float(before) + float(through)) / 2 / len(draws)
    return min(max(share, 0.5 / len(draws)), 1 - 0.5 / len(draws))


def _acceleration(pairs: Pairs) -> float:
    if len(pairs.sums) < 2:
        return 0.0
    without = (pairs.sums.sum() - pairs.sums) / (pairs.sizes.sum() - pairs.sizes)
    skew = without.mean() - without
    scale = float((skew**2).sum()) ** 1.5
    return float((skew**3).sum()) / (6 * scale) if scale > 0 else 0.0
