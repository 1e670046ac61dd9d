"""Cases to put before a person, made of lists of right and wrong."""

from collections.abc import Mapping
from dataclasses import replace

from components.costs import Costs, Prices, Speed, TokenPrice, Usage, Work, answering, bill
from components.gate import judge
from components.gate.evidence_folder import EvidenceSubject
from components.gate.policy import Policy
from components.gate.report.report_charts import Past
from components.gate.report.words import Case
from components.scorecard import HOLDOUT, PRODUCTION, Sample, Scorecard
from tests.support.cards import card, pair

SUBJECT = EvidenceSubject("support", "s1", "v1-abc", "b1", "a1", "base", "c1", "o1")
SPEED = Speed(
    *(100, 20_000, 3_000, 50.0, "2 threads of a CPU", 0.21, 24.0, 5), work=Work(72.0, "core", 2)
)
USAGE = Usage(400, 50, 120, "as the logs say")
PRICES = Prices(production=TokenPrice(input=2.5, output=10), hardware_per_hour=0.5, utilization=1)
TRAINING = Work(1200.0, "core", 2)
TURNS = (Past("01-01", "v1-abc", "fail", 0.4, 0.3, 0.5, 0.3),)


def costs(prices: Prices = PRICES) -> Costs:
    """Reckon costs of a measured challenger."""
    found = bill(prices, production=USAGE, challenger=SPEED, training=TRAINING)
    ours = answering(prices, SPEED)
    models = {"challenger": ours, "base": ours, PRODUCTION: found.production}
    return Costs(found, models, USAGE, SPEED)


def build(
    challenger: Scorecard,
    opponent: Scorecard,
    *,
    policy: Policy | None = None,
    prices: Prices = PRICES,
    others: Mapping[str, Scorecard] | None = None,
    guards: Mapping[str, tuple[Scorecard, Scorecard]] | None = None,
    subject: EvidenceSubject = SUBJECT,
    note: str = "",
) -> Case:
    """Judge the two and make a case of it."""
    ours, theirs = {HOLDOUT: challenger}, {HOLDOUT: opponent}
    for task, (mine, other) in (guards or {}).items():
        ours[task], theirs[task] = mine, other
    return Case(
        subject,
        judge.judge(ours, theirs, policy or Policy()),
        "e1",
        ours,
        theirs,
        costs(prices),
        others=others or {},
        counts={"kept": 40, "thumbs_down": 2},
        turns=TURNS,
        note=note,
    )


def clear(**changes: object) -> Case:
    """Make a case of a challenger that is clearly better, measured beside production."""
    production = {PRODUCTION: card([1.0] * 70 + [0.0] * 2)}
    return build(*pair(40, 2, 20, 10), others=production, **changes)  # pyright: ignore[reportArgumentType]


def saying(scorecard: Scorecard, text: str) -> Scorecard:
    """Put ``text`` wherever traffic or a model's answer can stand."""

    def say(sample: Sample) -> Sample:
        slices = {**sample.slices, "client": text if sample.doc_id % 2 else "app"}
        return replace(sample, request=text, reference=text, output=text, slices=slices)

    return replace(scorecard, samples=tuple(say(sample) for sample in scorecard.samples))
