"""Hold the challenger against production: which share of its quality is kept, at which price."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from components.costs import Bill
from components.gate.report.case import Case
from components.gate.report.numbers import money, percent, share
from components.kept import Kept, kept
from components.scorecard import (
    CORRECTED_ONLY,
    HOLDOUT,
    PRODUCTION,
    SCORED_ON,
    WHOLE_ANSWER,
    Scorecard,
)

TAKEN = (
    "Production's answers were not scored by themselves: they are taken for right, since the "
    "holdout's references are these answers, but for those that people corrected."
)

TAKEN_UNCORRECTED = (
    "Production's answers are taken for right where nobody corrected them, since there they are "
    "the references; that flatters it."
)


@dataclass(frozen=True, slots=True)
class Held:
    """Both models' scores of one metric on the same requests, in the same order.

    ``taken`` tells that production's are taken for right where nothing says otherwise.
    """

    metric: str
    challenger: tuple[float, ...]
    production: tuple[float, ...]
    clusters: tuple[str, ...]
    taken: bool

    @property
    def kept(self) -> Kept:
        """Which share of production's quality the challenger keeps."""
        return kept(self.challenger, self.production, self.clusters)

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


def held(case: Case, metric: str) -> Held | None:
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
    return Held(metric, ours, reference, clusters, taken)


def all_held(case: Case) -> list[Held]:
    """Hold the challenger to production by the target, and by each metric of the whole answer.

    A target that is easier than the whole answer would flatter the challenger.
    """
    names = dict.fromkeys((case.judgement.metric, *WHOLE_ANSWER))
    found = (held(case, name) for name in names)
    return [one for one in found if one is not None]


def rows(case: Case) -> list[Retained]:
    """List what is kept, by metric, as a table shows it."""
    return [_row(one) for one in all_held(case)]


def _row(both: Held) -> Retained:
    found, (ours, theirs) = both.kept, both.means
    interval = (
        "" if found.low is None or found.high is None else f"{found.low:.1%} to {found.high:.1%}"
    )
    return Retained(
        name=both.metric.replace("_", " "),
        production=f"{share(theirs)}{', taken for right' if both.taken else ''}",
        challenger=share(ours),
        share="unknown" if found.ratio is None else f"{found.ratio:.1%}",
        interval=interval or f"none: {found.unbounded}",
        n=found.n,
        clusters=both.count,
    )


def taken_score(case: Case) -> float | None:
    """Give production's mean score where its answers are taken for right; ``None`` if not."""
    found = held(case, case.judgement.metric)
    return found.means[1] if found is not None and found.taken else None


def sentence(case: Case) -> str:
    """Say which share of production's quality is kept, at which share of its price, and whence."""
    metric = case.judgement.metric
    both = {one.metric: one for one in all_held(case)}
    told = [_kept(one) for one in both.values() if one.kept.ratio is not None]
    if metric not in both or both[metric].kept.ratio is None:
        name = metric.replace("_", " ")
        told.insert(0, f"an unknown share of production's {name}")
    fraction = case.costs.bill.fraction.value
    price = "" if fraction is None else f", at {fraction:.2%} of its price of a request"
    listed = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    whence = f" {_whence(case, both[metric])}" if metric in both else ""
    return f"The challenger keeps {listed}{price}.{whence}"


def _kept(both: Held) -> str:
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


def _whence(case: Case, both: Held) -> str:
    """Say what production's score is the score of."""
    card = _measured(case, both.metric)
    if card is None:
        return TAKEN
    on, score = card.conditions.get(SCORED_ON), card.scores[both.metric]
    if both.taken:
        return (
            f"{TAKEN_UNCORRECTED} Of the {score.n} requests that people corrected it has "
            f"{share(score.value)}."
        )
    told = f"; it was scored on {on}" if on else ""
    ours, theirs = both.means
    return (
        f"Its logged answers have {share(theirs)} of {both.metric.replace('_', ' ')} there, the "
        f"challenger's {share(ours)}{told}."
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
