"""The table of costs, and the challenger against production: quality kept, and its price."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from components.costs import Amount, Bill, BreakEven, Speed, Usage
from components.gate.report.words import Case, Costs, as_share, money, percent
from components.gate.significance import KeptShare, kept_share
from components.scorecard import (
    CORRECTED_ONLY,
    HOLDOUT,
    PRODUCTION,
    SCORED_ON,
    WHOLE_ANSWER,
    Scorecard,
)

UNSAID = "the logs don't say"


@dataclass(frozen=True, slots=True)
class Charge:
    """One row of the table of costs: both models, and the formula or what is missing."""

    name: str
    production: str
    challenger: str
    how: str


def cost_rows(costs: Costs) -> list[Charge]:
    """List tokens, speed and money, of production and of the challenger."""
    return [*_tokens(costs.usage, costs.speed), *_speed(costs.speed), *_money(costs)]


def _tokens(usage: Usage | None, speed: Speed | None) -> list[Charge]:
    ours = speed.usage if speed and speed.requests else None
    how = "; ".join(
        f"{who}: mean of {one.requests} requests, {one.source}"
        for who, one in (("production", usage), ("challenger", ours))
        if one is not None
    )
    return [
        Charge(
            f"tokens {way}, a request",
            _mean_text(usage and getattr(usage, side)),
            _mean_text(ours and getattr(ours, side)),
            how or "not counted",
        )
        for way, side in (("in", "input"), ("out", "output"))
    ]


def _mean_text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _speed(speed: Speed | None) -> list[Charge]:
    if speed is None or speed.first_token is None or speed.tokens_per_second is None:
        return [Charge("time to first token", UNSAID, "not measured", "evaluate it anew")]
    alone = f"median of {speed.timed} requests answered one at a time on {speed.machine}"
    rate = speed.output_tokens / speed.seconds
    return [
        Charge("time to first token", UNSAID, f"{speed.first_token:.3g} s", alone),
        Charge("tokens a second", UNSAID, f"{speed.tokens_per_second:.3g}", alone),
        Charge(
            "tokens a second, in batches",
            UNSAID,
            f"{rate:.3g}",
            f"{speed.output_tokens} tokens in {speed.seconds:.3g} s of evaluation",
        ),
    ]


def _money(costs: Costs) -> list[Charge]:
    bill = costs.bill
    rows = [
        Charge(
            "price of a request",
            money(bill.production.value, bill.currency),
            money(bill.challenger.value, bill.currency),
            f"production: {bill.production.how}; challenger: {bill.challenger.how}",
        ),
        Charge("its share of production's", "", _share(bill.fraction), bill.fraction.how),
        Charge("training", "", money(bill.training.value, bill.currency), bill.training.how),
    ]
    back = bill.payback
    said = "unknown" if back.value is None else f"{back.value:,.0f} requests"
    if back.how.startswith("never"):
        said = "never"
    rows.append(Charge("the training has paid for itself after", "", said, back.how))
    if bill.break_even is not None:
        rows += _break_even(bill.break_even, bill.currency)
    return rows


def _break_even(found: BreakEven, currency: str) -> list[Charge]:
    least = found.least_utilization
    return [
        Charge(
            "break-even utilization",
            "",
            "none: dearer even without idle time" if least > 1 else percent(least),
            "the challenger's price of a request without idle time / production's price",
        ),
        Charge(
            "break-even price of a request",
            money(found.production * found.price_factor, currency),
            "",
            f"{percent(found.price_factor)} of production's assumed prices, at a utilization of "
            f"{percent(found.utilization)}",
        ),
    ]


def _share(fraction: Amount) -> str:
    return "unknown" if fraction.value is None else f"{fraction.value:.2%}"


TAKEN = (
    "Production's answers were not scored by themselves: they are taken for right, since the "
    "holdout's references are these answers, but for those that people corrected."
)

TAKEN_UNCORRECTED = (
    "Production's answers are taken for right where nobody corrected them, since there they are "
    "the references; that flatters it."
)


@dataclass(frozen=True, slots=True)
class QualityScores:
    """Both models' scores of one metric on the same requests, in the same order.

    ``taken`` tells that production's are taken for right where nothing says otherwise.
    """

    metric: str
    challenger: tuple[float, ...]
    production: tuple[float, ...]
    clusters: tuple[str, ...]
    taken: bool

    @property
    def kept(self) -> KeptShare:
        """Which share of production's quality the challenger keeps."""
        return kept_share(self.challenger, self.production, self.clusters)

    @property
    def count(self) -> int:
        """How many clusters the requests fall into."""
        return len({*self.clusters})

    @property
    def means(self) -> tuple[float, float]:
        """The mean scores of challenger and production."""
        return _mean(self.challenger), _mean(self.production)


@dataclass(frozen=True, slots=True)
class Retained:
    """One row of the table of what is kept of production's quality, in words."""

    name: str
    production: str
    challenger: str
    share: str
    interval: str
    n: int
    clusters: int


def scored(case: Case) -> Scorecard | None:
    """Give production's scorecard where its score stands for the requests that it is a mean of.

    What only people's corrections are held against was picked by being wrong.
    """
    return _scored(case, case.judgement.metric)


def quality_scores(case: Case, metric: str) -> QualityScores | None:
    """Put the challenger's scores beside production's; ``None`` if there are none.

    Where production's answers can't be scored they are taken for right: the holdout's references
    are these answers, but for those that people corrected.
    """
    challenger = case.challenger.get(HOLDOUT)
    if challenger is None or metric not in challenger.metrics:
        return None
    taken = _scored(case, metric) is None
    theirs = _scores(_measured(case, metric), metric)
    rows = [
        (mine, other, one.cluster_id)
        for one in challenger.samples
        if (mine := one.scores.get(metric)) is not None
        and (other := theirs.get(one.doc_hash, 1.0 if taken else None)) is not None
    ]
    if not rows:
        return None
    ours, reference, clusters = zip(*rows, strict=True)
    return QualityScores(metric, ours, reference, clusters, taken)


def all_quality_scores(case: Case) -> list[QualityScores]:
    """Hold the challenger to production by the target, and by each metric of the whole answer.

    A target that is easier than the whole answer would flatter the challenger.
    """
    names = dict.fromkeys((case.judgement.metric, *WHOLE_ANSWER))
    found = (quality_scores(case, name) for name in names)
    return [one for one in found if one is not None]


def rows(case: Case) -> list[Retained]:
    """List what is kept, by metric, as a table shows it."""
    return [_row(one) for one in all_quality_scores(case)]


def _row(both: QualityScores) -> Retained:
    found, (ours, theirs) = both.kept, both.means
    interval = (
        "" if found.low is None or found.high is None else f"{found.low:.1%} to {found.high:.1%}"
    )
    return Retained(
        name=both.metric.replace("_", " "),
        production=f"{as_share(theirs)}{', taken for right' if both.taken else ''}",
        challenger=as_share(ours),
        share="unknown" if found.ratio is None else f"{found.ratio:.1%}",
        interval=interval or f"none: {found.unbounded}",
        n=found.n,
        clusters=both.count,
    )


def taken_score(case: Case) -> float | None:
    """Give production's mean score where its answers are taken for right; ``None`` if not."""
    found = quality_scores(case, case.judgement.metric)
    return found.means[1] if found is not None and found.taken else None


def sentence(case: Case) -> str:
    """Say which share of production's quality is kept, at which share of its price, and whence."""
    metric = case.judgement.metric
    both = {one.metric: one for one in all_quality_scores(case)}
    told = [_kept(one) for one in both.values() if one.kept.ratio is not None]
    if metric not in both or both[metric].kept.ratio is None:
        name = metric.replace("_", " ")
        told.insert(0, f"an unknown share of production's {name}")
    fraction = case.costs.bill.fraction.value
    price = "" if fraction is None else f", at {fraction:.2%} of its price of a request"
    listed = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    whence = f" {_whence(case, both[metric])}" if metric in both else ""
    return f"The challenger keeps {listed}{price}.{whence}"


def _kept(both: QualityScores) -> str:
    """Say which share of one metric is kept."""
    found = both.kept
    spread = (
        f"no interval: {found.unbounded}"
        if found.low is None or found.high is None
        else f"95 % interval {found.low:.1%} to {found.high:.1%}, {found.method}"
    )
    return (
        f"{found.ratio:.1%} of production's {both.metric.replace('_', ' ')} ({spread}, "
        f"{found.n} requests in {both.count} clusters)"
    )


def break_even(bill: Bill) -> str:
    """Say at which utilization, and at which price of production, both cost the same."""
    found = bill.break_even
    if found is None:
        return ""
    price = money(found.production * found.price_factor, bill.currency)
    at_assumed = (
        f"At the assumed utilization of {percent(found.utilization)}, which is "
        f"{found.hourly:,.0f} requests an hour, both cost the same where production takes "
        f"{percent(found.price_factor)} of its assumed prices ({price} a request)."
    )
    least = found.least_utilization
    at_price = (
        "At production's assumed prices the challenger is dearer even without idle time."
        if least > 1
        else "At production's assumed prices both cost the same at a utilization of "
        f"{percent(least)}."
    )
    return f"{at_price} {at_assumed}"


def account(case: Case) -> list[str]:
    """Tell what is kept, and each amount with its formula; what has no price is left out."""
    bill = case.costs.bill
    amounts = {
        "a request in production": bill.production,
        "a request to the challenger": bill.challenger,
        "the training": bill.training,
    }
    told = [
        f"{name}: {money(one.value, bill.currency)} = {one.how}"
        for name, one in amounts.items()
        if one.value is not None
    ]
    if bill.payback.value is not None:
        told.append(f"the training has paid for itself after {bill.payback.value:,.0f} requests")
    if even := break_even(bill):
        told.append(even)
    return [sentence(case), *told]


def _whence(case: Case, both: QualityScores) -> str:
    """Say what production's score is the score of."""
    card = _measured(case, both.metric)
    if card is None:
        return TAKEN
    on, score = card.conditions.get(SCORED_ON), card.scores[both.metric]
    if both.taken:
        return (
            f"{TAKEN_UNCORRECTED} Of the {score.n} requests that people corrected it has "
            f"{as_share(score.value)}."
        )
    told = f"; it was scored on {on}" if on else ""
    ours, theirs = both.means
    return (
        f"Its logged answers have {as_share(theirs)} of {both.metric.replace('_', ' ')} there, the "
        f"challenger's {as_share(ours)}{told}."
    )


def _measured(case: Case, metric: str) -> Scorecard | None:
    """Give production's scorecard where it measured a metric at all."""
    card = case.others.get(PRODUCTION)
    return card if card is not None and metric in card.scores and card.scores[metric].n else None


def _scored(case: Case, metric: str) -> Scorecard | None:
    card = _measured(case, metric)
    return None if card is None or card.conditions.get(CORRECTED_ONLY) else card


def _scores(card: Scorecard | None, metric: str) -> Mapping[str, float]:
    found = [(one.doc_hash, one.scores.get(metric)) for one in card.samples] if card else []
    return {doc_hash: score for doc_hash, score in found if score is not None}


def _mean(scores: tuple[float, ...]) -> float:
    return math.fsum(scores) / len(scores)
