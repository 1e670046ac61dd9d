"""Write the report of a case into its evidence folder: charts, page, every request."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.gate.comparability import Measured
from components.gate.judgement import Slice
from components.gate.report import (
    baseline_comparison,
    cost_charts,
    production_costs,
    score_charts,
    words,
)
from components.gate.report.cost_charts import Point
from components.gate.report.score_charts import Past, SliceTally
from components.gate.report.side_by_side import Figure, differing, figures
from components.gate.report.words import Case, as_share, between, counted, points
from components.gate.share_interval import share_interval
from components.pages import templates
from components.scorecard import HOLDOUT, PRODUCTION, Sample, Scorecard
from components.store import manifest

SCORE_TYPE = pa.map_(pa.string(), pa.float64())

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("example_id", pa.string()),
        ("cluster_id", pa.string()),
        ("doc_hash", pa.string()),
        ("request", pa.string()),
        ("reference", pa.string()),
        ("challenger", pa.string()),
        ("opponent", pa.string()),
        ("challenger_scores", SCORE_TYPE),
        ("opponent_scores", SCORE_TYPE),
        ("slices", pa.map_(pa.string(), pa.string())),
    ]
)
"""One row per request of a task; what the opponent was not asked is null."""


def write_answers(path: Path, challenger: Measured, opponent: Measured) -> None:
    """Write the rows, by task and then by the hash of the request."""
    rows: list[dict[str, object]] = []
    for task, card in sorted(challenger.items()):
        theirs = opponent.get(task)
        others = {one.doc_hash: one for one in theirs.samples} if theirs else {}
        ordered = sorted(card.samples, key=lambda one: one.doc_hash)
        rows += [_answer_row(task, one, others.get(one.doc_hash)) for one in ordered]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, compression="zstd")


def _answer_row(task: str, ours: Sample, theirs: Sample | None) -> dict[str, object]:
    return {
        "task": task,
        "example_id": ours.example_id,
        "cluster_id": ours.cluster_id,
        "doc_hash": ours.doc_hash,
        "request": ours.request,
        "reference": ours.reference,
        "challenger": ours.output,
        "opponent": theirs.output if theirs else None,
        "challenger_scores": [*ours.scores.items()],
        "opponent_scores": [*theirs.scores.items()] if theirs else None,
        "slices": [*ours.slices.items()],
    }


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
class ScoreRow:
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
    write_answers(folder / SAMPLES, case.challenger, case.opponent)
    manifest.write_atomically(folder / REPORT, html(case, found, drawn))
    return found


def _draw(case: Case, found: Sequence[Figure], folder: Path, this: Past) -> None:
    metric, opponent = case.judgement.metric, case.subject.opponent_name
    cards = {opponent: case.opponent.get(HOLDOUT), "challenger": case.challenger.get(HOLDOUT)}
    measured = {name: card for name, card in cards.items() if card is not None}
    if measured:
        score_charts.draw_scores(measured, folder / PICTURES["scores"])
    score_charts.draw_differences([one.effect for one in found], folder / PICTURES["differences"])
    score_charts.draw_history([*case.turns, this], folder / PICTURES["history"], metric=metric)
    if case.judgement.slices:
        tallies = [_tally(one) for one in case.judgement.slices]
        score_charts.draw_slices(tallies, folder / PICTURES["slices"], opponent=opponent)
    if shown := priced(case):
        currency = case.costs.bill.currency
        cost_charts.draw_pareto(shown, folder / PICTURES["cost"], metric=metric, currency=currency)
    if (even := case.costs.bill.break_even) is not None:
        path = folder / PICTURES["break_even"]
        cost_charts.draw_break_even(even, path, currency=case.costs.bill.currency)


def _tally(one: Slice) -> SliceTally:
    return SliceTally(
        f"{one.name}: {one.value}", one.n, one.wins, one.losses, one.is_worse, one.clusters
    )


def priced(case: Case) -> list[Point]:
    """List the models whose price and score are both known, for a thousand requests."""
    metric = case.judgement.metric
    cards: dict[str, Scorecard | None] = {
        **{name: card for name, card in case.others.items() if name != PRODUCTION},
        PRODUCTION: production_costs.scored(case),
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
    paid, taken = case.costs.request.get(PRODUCTION), production_costs.taken_score(case)
    if taken is not None and paid and paid.value is not None:
        found.append(Point(TAKEN_FOR_RIGHT, 1000 * paid.value, taken, None, None))
    return found


def html(case: Case, found: Sequence[Figure], pictures: Mapping[str, Path]) -> str:
    """Write the report with those pictures that were drawn, by their names in ``PICTURES``."""
    lines = [(one.effect.kind, _line(one)) for one in found]
    lost, won = differing(case)
    return templates.render(
        "gate/report/page.html.j2",
        case=case,
        opponent=case.subject.opponent_name,
        sentence=words.verdict_sentence(case),
        reasons=(*case.judgement.reasons, *words.term_sentences(case.judgement)),
        change=words.change_sentence(case),
        baselines=baseline_comparison.hold(case),
        scores=[line for kind, line in lines if kind != "guard"],
        guards=[line for kind, line in lines if kind == "guard"],
        slices=[_part(one) for one in case.judgement.slices],
        charges=production_costs.cost_rows(case.costs),
        kept=production_costs.sentence(case),
        retained=production_costs.rows(case),
        break_even=production_costs.break_even(case.costs.bill),
        lost=lost[:EXAMPLES],
        won=won[:EXAMPLES],
        conditions=conditions(case),
        pictures=pictures,
    )


def _line(one: Figure) -> ScoreRow:
    effect = one.effect
    return ScoreRow(
        name=effect.name,
        meaning=one.meaning,
        opponent=as_share(one.opponent),
        challenger=as_share(one.challenger),
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
