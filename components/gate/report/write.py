"""Write what people read of a case into the evidence folder: pictures, report, every request."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components import manifest
from components.gate import terms
from components.gate.judgement import Slice
from components.gate.report import answers, baselines, charges, production, telling
from components.gate.report.apart import differing
from components.gate.report.case import Case
from components.gate.report.figures import Figure, figures
from components.gate.report.numbers import between, counted, points, share
from components.gate.report.pictures import break_even, forest, history, pareto, scores, slices
from components.gate.report.pictures.history import Past
from components.gate.report.pictures.pareto import Point
from components.gate.report.pictures.slices import Tally
from components.gate.shares import share_interval
from components.pages import jinja
from components.scorecard import HOLDOUT, PRODUCTION, Scorecard

REPORT = "report.html"
SAMPLES = "samples.parquet"

PICTURES = {
    "scores": "scores.png",
    "differences": "differences.png",
    "slices": "slices.png",
    "cost": "cost.png",
    "break_even": "break_even.png",
    "history": "history.png",
}

TAKEN_FOR_RIGHT = f"{PRODUCTION}, taken for right"

EXAMPLES = 10
"""Requests that only the one, or only the other, got right are shown, so many of either."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table of scores, in words; ``mood`` (good, bad or none) colours what is said."""

    name: str
    meaning: str
    opponent: str
    challenger: str
    difference: str
    interval: str
    n: int
    clusters: str
    said: str = ""
    mood: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the table of slices, in words; ``said`` only where it is significantly worse."""

    name: str
    better: int
    worse: int
    difference: str
    interval: str
    n: int
    clusters: str
    said: str


def write(case: Case, folder: Path, *, this: Past) -> list[Figure]:
    """Write pictures, rows and the report; give the figures that they show.

    Args:
        case: What the evidence is about.
        folder: The evidence folder.
        this: This turn, as the picture of all turns shows it.
    """
    found = figures(case.challenger, case.opponent, case.judgement)
    _draw(case, found, folder, this)
    pictures = {name: folder / file for name, file in PICTURES.items()}
    drawn = {name: path for name, path in pictures.items() if path.is_file()}
    answers.write(folder / SAMPLES, case.challenger, case.opponent)
    manifest.write_atomically(folder / REPORT, html(case, found, drawn))
    return found


def _draw(case: Case, found: Sequence[Figure], folder: Path, this: Past) -> None:
    metric, opponent = case.judgement.metric, case.subject.opponent_name
    cards = {opponent: case.opponent.get(HOLDOUT), "challenger": case.challenger.get(HOLDOUT)}
    measured = {name: card for name, card in cards.items() if card is not None}
    if measured:
        scores.draw(measured, folder / PICTURES["scores"])
    forest.draw([one.effect for one in found], folder / PICTURES["differences"])
    history.draw([*case.turns, this], folder / PICTURES["history"], metric=metric)
    if case.judgement.slices:
        tallies = [_tally(one) for one in case.judgement.slices]
        slices.draw(tallies, folder / PICTURES["slices"], opponent=opponent)
    if shown := priced(case):
        currency = case.costs.bill.currency
        pareto.draw(shown, folder / PICTURES["cost"], metric=metric, currency=currency)
    if (even := case.costs.bill.break_even) is not None:
        path = folder / PICTURES["break_even"]
        break_even.draw(even, path, currency=case.costs.bill.currency)


def _tally(one: Slice) -> Tally:
    return Tally(
        f"{one.name}: {one.value}", one.n, one.wins, one.losses, one.is_worse, one.clusters
    )


def priced(case: Case) -> list[Point]:
    """List the models whose price and score are both known, for a thousand requests."""
    metric = case.judgement.metric
    cards: dict[str, Scorecard | None] = {
        **{name: card for name, card in case.others.items() if name != PRODUCTION},
        PRODUCTION: production.scored(case),
        case.subject.opponent_name: case.opponent.get(HOLDOUT),
        "challenger": case.challenger.get(HOLDOUT),
    }
    found: list[Point] = []
    for name, card in cards.items():
        price = case.costs.request.get(name)
        score = card.scores[metric].value if card and metric in card.scores else None
        if card is None or price is None or price.value is None or score is None:
            continue
        low, high = share_interval(card, metric) or (None, None)
        found.append(Point(name, 1000 * price.value, score, low, high))
    paid, taken = case.costs.request.get(PRODUCTION), production.taken_score(case)
    if taken is not None and paid and paid.value is not None:
        found.append(Point(TAKEN_FOR_RIGHT, 1000 * paid.value, taken, None, None))
    return found


def html(case: Case, found: Sequence[Figure], pictures: Mapping[str, Path]) -> str:
    """Write the report with those pictures that were drawn, by their names in ``PICTURES``."""
    lines = [(one.effect.kind, _line(one)) for one in found]
    lost, won = differing(case)
    return jinja.render(
        "gate/report/page.html.j2",
        case=case,
        opponent=case.subject.opponent_name,
        sentence=telling.sentence(case),
        reasons=(*case.judgement.reasons, *terms.sentences(case.judgement)),
        change=telling.change(case),
        baselines=baselines.hold(case),
        scores=[line for kind, line in lines if kind != "guard"],
        guards=[line for kind, line in lines if kind == "guard"],
        slices=[_part(one) for one in case.judgement.slices],
        charges=charges.charges(case.costs),
        kept=production.sentence(case),
        retained=production.rows(case),
        break_even=production.break_even(case.costs.bill),
        lost=lost[:EXAMPLES],
        won=won[:EXAMPLES],
        conditions=conditions(case),
        pictures=pictures,
    )


def _line(one: Figure) -> Line:
    effect = one.effect
    return Line(
        name=effect.name,
        meaning=one.meaning,
        opponent=share(one.opponent),
        challenger=share(one.challenger),
        difference=points(effect.difference) or "not compared",
        interval=between(effect.low, effect.high),
        n=effect.n,
        clusters=counted(effect.clusters),
        said=one.said,
        mood=one.mood,
    )


def _part(one: Slice) -> Part:
    return Part(
        name=f"{one.name}: {one.value}",
        better=one.wins,
        worse=one.losses,
        difference=points(one.difference),
        interval=between(one.low, one.high),
        n=one.n,
        clusters=counted(one.clusters),
        said=f"worse (p = {one.p_worse:.2g}, corrected for all parts)" if one.is_worse else "",
    )


def conditions(case: Case) -> dict[str, str]:
    """Say what was measured, and under which conditions, as the scorecards have it."""
    subject, card = case.subject, case.challenger.get(HOLDOUT)
    named = {
        "snapshot": subject.snapshot,
        "holdout version": subject.holdout_version,
        "look": f"this is look {case.judgement.look} at this holdout, "
        f"allowed to err with a chance of {case.judgement.alpha:.4g}",
        "base": subject.base,
        "adapter": subject.adapter,
        "opponent": subject.opponent_name,
    }
    stated = card.conditions if card else {}
    return named | {
        name.replace("_", " "): value if isinstance(value, str) else json.dumps(value)
        for name, value in sorted(stated.items())
        if name not in ("task", "holdout_version")
    }
