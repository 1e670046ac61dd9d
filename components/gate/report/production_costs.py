"""The table of costs, and the challenger against production: quality kept and price."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import scipy

from components.costs import Bill, BreakEven, Costs, Speed, Usage, money
from components.gate.report.words import Case, as_share, percent
from components.scorecard import (
    CORRECTED_ONLY,
    HOLDOUT,
    PRODUCTION,
    SCORED_ON,
    WHOLE_ANSWER,
    Scorecard,
)

NOT_LOGGED = "not logged"


@dataclass(frozen=True, slots=True)
class Charge:
    """One row of the table of costs: both models' values, and the formula or the missing input."""

    name: str
    production: str
    challenger: str
    how: str


def cost_rows(costs: Costs) -> list[Charge]:
    """Return the rows on tokens, speed and money of production and the challenger."""
    return [*_tokens(costs.usage, costs.speed), *_speed(costs.speed), *_money(costs)]


def _tokens(usage: Usage | None, speed: Speed | None) -> list[Charge]:
    measured = speed.usage if speed and speed.requests else None
    how = "; ".join(
        f"{who}: mean of {counted.requests} requests, {counted.source}"
        for who, counted in (("production", usage), ("challenger", measured))
        if counted is not None
    )
    return [
        Charge(
            f"tokens {way}, a request",
            _mean_text(usage and getattr(usage, side)),
            _mean_text(measured and getattr(measured, side)),
            how or "not counted",
        )
        for way, side in (("in", "input"), ("out", "output"))
    ]


def _mean_text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _speed(speed: Speed | None) -> list[Charge]:
    if speed is None or speed.first_token is None or speed.tokens_per_second is None:
        return [Charge("time to first token", NOT_LOGGED, "not measured", "evaluate it again")]
    alone = f"median of {speed.timed} requests answered one at a time on {speed.machine}"
    rate = speed.output_tokens / speed.seconds
    return [
        Charge("time to first token", NOT_LOGGED, f"{speed.first_token:.3g} s", alone),
        Charge("tokens a second", NOT_LOGGED, f"{speed.tokens_per_second:.3g}", alone),
        Charge(
            "tokens a second, in batches",
            NOT_LOGGED,
            f"{rate:.3g}",
            f"{speed.output_tokens} tokens in {speed.seconds:.3g} s of evaluation",
        ),
    ]


def _money(costs: Costs) -> list[Charge]:
    bill = costs.bill
    share = "unknown" if bill.fraction.value is None else f"{bill.fraction.value:.2%}"
    rows = [
        Charge(
            "price of a request",
            money(bill.production.value, bill.currency),
            money(bill.challenger.value, bill.currency),
            f"production: {bill.production.how}; challenger: {bill.challenger.how}",
        ),
        Charge("its share of production's", "", share, bill.fraction.how),
        Charge("training", "", money(bill.training.value, bill.currency), bill.training.how),
    ]
    back = bill.payback
    text = "unknown" if back.value is None else f"{back.value:,.0f} requests"
    if back.how.startswith("never"):
        text = "never"
    rows.append(Charge("the training has paid for itself after", "", text, back.how))
    if bill.break_even is not None:
        rows += _break_even(bill.break_even, bill.currency)
    return rows


def _break_even(costs: BreakEven, currency: str) -> list[Charge]:
    least = costs.least_utilization
    return [
        Charge(
            "break-even utilization",
            "",
            "none: dearer even without idle time" if least > 1 else percent(least),
            "the challenger's price of a request without idle time / production's price",
        ),
        Charge(
            "break-even price of a request",
            money(costs.production * costs.price_factor, currency),
            "",
            f"{percent(costs.price_factor)} of production's assumed prices, at a utilization of "
            f"{percent(costs.utilization)}",
        ),
    ]


TAKEN = (
    "Production's answers were not scored separately: they are assumed right, since the "
    "holdout's references are these answers, except those that people corrected."
)

TAKEN_UNCORRECTED = (
    "Production's answers are assumed right where nobody corrected them, since there they are "
    "the references; that flatters it."
)


DEGENERATE = 1e-9  # a narrower interval comes from equal differences, and would claim certainty


@dataclass(frozen=True, slots=True)
class KeptShare:
    """The ratio of two mean scores over the same ``n`` requests, with its interval and method.

    ``unbounded`` is the reason if there is no interval.
    """

    ratio: float | None
    low: float | None
    high: float | None
    n: int
    unbounded: str | None = None
    method: str = "Fieller"


def kept_share(
    scores: Sequence[float],
    reference: Sequence[float],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> KeptShare:
    """Return mean(scores) / mean(reference) with Fieller's interval for paired means.

    It contains all ratios r for which mean(scores) - r mean(reference) is not significantly
    different from zero (Fieller 1954, "Some problems in interval estimation", J. R. Stat. Soc.
    B 16, 175-185). Variances are clustered (Liang and Zeger 1986, Biometrika 73, 13-22), with
    Student's t for (clusters - 1) degrees of freedom; without ``clusters`` all requests are
    independent.

    If the reference is right on everything, the ratio is a share of right answers: then it is
    Wilson's interval (1927, J. Am. Stat. Assoc. 22, 209-212), which does not claim certainty if
    all are right; each cluster counts as one request.

    Raises:
        ValueError: The two differ in length.
    """
    n = len(scores)
    if len(reference) != n or (clusters is not None and len(clusters) != n):
        raise ValueError(f"comparing {n} scores with {len(reference)}: expected pairs")
    ours, theirs = math.fsum(scores) / max(1, n), math.fsum(reference) / max(1, n)
    if theirs == 0:
        return KeptShare(None, None, None, n, "the reference was right on nothing")
    groups = sorted({*clusters}) if clusters is not None else [*range(n)]
    if len(groups) < 2:
        return KeptShare(ours / theirs, None, None, n, "all requests belong together")
    if {*reference} == {1.0} and {*scores} <= {0.0, 1.0}:
        low, high = _wilson_of_share(ours, len(groups), level)
        return KeptShare(ours, low, high, n, method="Wilson")
    place = {group: index for index, group in enumerate(groups)}
    sums = np.zeros((len(groups), 2))
    for row, group in enumerate(clusters if clusters is not None else groups):
        sums[place[group]] += scores[row] - ours, reference[row] - theirs
    (var_ours, both), (_, var_theirs) = sums.T @ sums / n**2 * len(groups) / (len(groups) - 1)
    t_squared = float(scipy.stats.t.ppf((1 + level) / 2, len(groups) - 1)) ** 2
    square = theirs**2 - t_squared * float(var_theirs)
    if square <= 0:
        return KeptShare(ours / theirs, None, None, n, "the reference is not surely above zero")
    half = ours * theirs - t_squared * float(both)
    spread = math.sqrt(max(0.0, half**2 - square * (ours**2 - t_squared * float(var_ours))))
    if spread < DEGENERATE:
        return KeptShare(ours / theirs, None, None, n, "the two differ on no request")
    low, high = (half - spread) / square, (half + spread) / square
    return KeptShare(ours / theirs, max(0.0, low), high, n)


def _wilson_of_share(share: float, n: int, level: float) -> tuple[float, float]:
    # Wilson 1927, eq. 4
    squared = float(scipy.stats.norm.ppf((1 + level) / 2)) ** 2
    middle, spread = share + squared / (2 * n), squared * share * (1 - share) / n
    half, scale = math.sqrt(spread + (squared / (2 * n)) ** 2), 1 + squared / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True, slots=True)
class QualityScores:
    """Both models' scores of one metric on the same requests, in the same order.

    ``taken``: production's answers are assumed right unless a person corrected them.
    """

    metric: str
    challenger: tuple[float, ...]
    production: tuple[float, ...]
    clusters: tuple[str, ...]
    taken: bool

    @property
    def kept(self) -> KeptShare:
        """The share of production's quality that the challenger keeps."""
        return kept_share(self.challenger, self.production, self.clusters)

    @property
    def count(self) -> int:
        """The number of clusters of the requests."""
        return len({*self.clusters})

    @property
    def means(self) -> tuple[float, float]:
        """The mean scores of challenger and production."""
        return fmean(self.challenger), fmean(self.production)


def quality_scores(case: Case, metric: str) -> QualityScores | None:
    """Return the challenger's and production's scores by request; ``None`` if there are none.

    If production's answers can't be scored they are assumed right: the holdout's references are
    these answers, except those that people corrected.
    """
    challenger = case.challenger.get(HOLDOUT)
    if challenger is None or metric not in challenger.metrics:
        return None
    taken = scored(case, metric) is None
    card = _measured(case, metric)
    theirs = card.measured(metric) if card else {}
    rows = [
        (mine, other, sample.cluster_id)
        for sample in challenger.samples
        if (mine := sample.scores.get(metric)) is not None
        and (other := theirs.get(sample.doc_hash, 1.0 if taken else None)) is not None
    ]
    if not rows:
        return None
    ours, reference, clusters = zip(*rows, strict=True)
    return QualityScores(metric, ours, reference, clusters, taken)


def all_quality_scores(case: Case) -> list[QualityScores]:
    """Compare the challenger with production by the target and by each whole-answer metric.

    A target that is easier than the whole answer would flatter the challenger.
    """
    names = dict.fromkeys((case.judgement.metric, *WHOLE_ANSWER))
    by_metric = (quality_scores(case, name) for name in names)
    return [scores for scores in by_metric if scores is not None]


def taken_score(case: Case) -> float | None:
    """Return production's mean score if its answers are assumed right, else ``None``."""
    scores = quality_scores(case, case.judgement.metric)
    return scores.means[1] if scores is not None and scores.taken else None


def sentence(case: Case) -> str:
    """Return the sentence on the share of production's quality that is kept, and its price."""
    metric = case.judgement.metric
    by_metric = {scores.metric: scores for scores in all_quality_scores(case)}
    shares = [_kept(scores) for scores in by_metric.values() if scores.kept.ratio is not None]
    if metric not in by_metric or by_metric[metric].kept.ratio is None:
        name = metric.replace("_", " ")
        shares.insert(0, f"an unknown share of production's {name}")
    fraction = case.costs.bill.fraction.value
    price = (
        ""
        if fraction is None
        else f", at {fraction:.2%} of its price of a request (means over distinct requests)"
    )
    listed = " and ".join([", ".join(shares[:-1]), shares[-1]] if len(shares) > 1 else shares)
    source = f" {_score_source(case, by_metric[metric])}" if metric in by_metric else ""
    return f"The challenger keeps {listed}{price}.{source}"


def _kept(scores: QualityScores) -> str:
    kept = scores.kept
    spread = (
        f"no interval: {kept.unbounded}"
        if kept.low is None or kept.high is None
        else f"95 % interval {kept.low:.1%} to {kept.high:.1%}, {kept.method}"
    )
    return (
        f"{kept.ratio:.1%} of production's {scores.metric.replace('_', ' ')} ({spread}, "
        f"{kept.n} distinct requests in {scores.count} clusters)"
    )


def break_even(bill: Bill) -> str:
    """Return the utilization and production's price at which both cost the same, in sentences."""
    costs = bill.break_even
    if costs is None:
        return ""
    price = money(costs.production * costs.price_factor, bill.currency)
    at_assumed = (
        f"At the assumed utilization of {percent(costs.utilization)}, which is "
        f"{costs.hourly:,.0f} requests an hour, both cost the same if production costs "
        f"{percent(costs.price_factor)} of its assumed prices ({price} a request)."
    )
    least = costs.least_utilization
    at_price = (
        "At production's assumed prices the challenger is dearer even without idle time."
        if least > 1
        else "At production's assumed prices both cost the same at a utilization of "
        f"{percent(least)}."
    )
    return f"{at_price} {at_assumed}"


def account(case: Case) -> list[str]:
    """Return sentences on the quality kept and on each known amount with its formula."""
    bill = case.costs.bill
    amounts = {
        "a request in production": bill.production,
        "a request to the challenger": bill.challenger,
        "the training": bill.training,
    }
    sentences = [
        f"{name}: {money(amount.value, bill.currency)} = {amount.how}"
        for name, amount in amounts.items()
        if amount.value is not None
    ]
    if bill.payback.value is not None:
        sentences.append(
            f"the training has paid for itself after {bill.payback.value:,.0f} requests"
        )
    if even := break_even(bill):
        sentences.append(even)
    return [sentence(case), *sentences]


def _score_source(case: Case, both: QualityScores) -> str:
    """Return the sentence on how production was scored."""
    card = _measured(case, both.metric)
    if card is None:
        return TAKEN
    on, score = card.conditions.get(SCORED_ON), card.scores[both.metric]
    if both.taken:
        return (
            f"{TAKEN_UNCORRECTED} On the {score.n} requests that people corrected it scores "
            f"{as_share(score.value)}."
        )
    scored_on = f"; it was scored on {on}" if on else ""
    ours, theirs = both.means
    return (
        f"Its logged answers score {as_share(theirs)} by {both.metric.replace('_', ' ')} there, "
        f"the challenger's {as_share(ours)}{scored_on}."
    )


def _measured(case: Case, metric: str) -> Scorecard | None:
    card = case.others.get(PRODUCTION)
    return card if card is not None and metric in card.scores and card.scores[metric].n else None


def scored(case: Case, metric: str) -> Scorecard | None:
    """Return production's scorecard if its score is unbiased, else ``None``.

    Requests that people corrected are selected for being wrong, so a score on them alone is biased.
    """
    card = _measured(case, metric)
    return None if card is None or card.conditions.get(CORRECTED_ONLY) else card
