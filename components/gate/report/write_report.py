"""The report of a case, its page and all requests; and its brief, for the approval form."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.gate.comparability import Measured
from components.gate.report import baseline_comparison, production_costs, words
from components.gate.report.side_by_side import Figure, differing, figures, take_turns
from components.gate.report.words import Case
from components.pages import templates
from components.scorecard import HOLDOUT, PRODUCTION, Difference, Sample, Scorecard
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
"""One row per request of a task; the opponent's columns are null if it has no such request."""


def write_answers(path: Path, challenger: Measured, opponent: Measured) -> None:
    """Write the rows, ordered by task and then by the hash of the request."""
    rows: list[dict[str, object]] = []
    for task, card in sorted(challenger.items()):
        theirs = opponent.get(task)
        others = {sample.doc_hash: sample for sample in theirs.samples} if theirs else {}
        ordered = sorted(card.samples, key=lambda sample: sample.doc_hash)
        rows += [_answer_row(task, sample, others.get(sample.doc_hash)) for sample in ordered]
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

ASSUMED_RIGHT = f"{PRODUCTION}, assumed right"

EXAMPLES = 10  # the most lost, and the most won, requests that are shown


def write(case: Case, folder: Path) -> list[Figure]:
    """Write rows and report; return the shown figures."""
    shown = figures(case.challenger, case.opponent, case.judgement)
    write_answers(folder / SAMPLES, case.challenger, case.opponent)
    manifest.write_atomically(folder / REPORT, html(case, shown))
    return shown


@dataclass(frozen=True, slots=True)
class PricedModel:
    """One model: its score, and the price of a thousand requests."""

    name: str
    price: float
    score: float


def priced(case: Case) -> list[PricedModel]:
    """Return the models whose price and score are both known, the cheapest first."""
    metric = case.judgement.metric
    cards: dict[str, Scorecard | None] = {
        **{name: card for name, card in case.others.items() if name != PRODUCTION},
        PRODUCTION: production_costs.scored(case, metric),
        case.subject.opponent_name: case.opponent.get(HOLDOUT),
        "challenger": case.challenger.get(HOLDOUT),
    }
    known: list[PricedModel] = []
    for name, card in cards.items():
        price = case.costs.request.get(name)
        score = card.scores[metric].value if card and metric in card.scores else None
        if card is None or price is None or price.value is None or score is None:
            continue
        known.append(PricedModel(name, 1000 * price.value, score))
    paid, taken = case.costs.request.get(PRODUCTION), production_costs.taken_score(case)
    if taken is not None and paid and paid.value is not None:
        known.append(PricedModel(ASSUMED_RIGHT, 1000 * paid.value, taken))
    return sorted(known, key=lambda model: (model.price, model.name))


def html(case: Case, shown: Sequence[Figure]) -> str:
    """Return the report's page."""
    lost, won = differing(case)
    return templates.render(
        "gate/report/page.html.j2",
        case=case,
        opponent=case.subject.opponent_name,
        sentence=words.verdict_sentence(case),
        reasons=(*case.judgement.reasons, *words.term_sentences(case.judgement)),
        change=words.change_sentence(case),
        baselines=baseline_comparison.hold(case),
        scores=[figure for figure in shown if figure.kind != "guard"],
        guards=[figure for figure in shown if figure.kind == "guard"],
        charges=production_costs.cost_rows(case.costs),
        kept=production_costs.sentence(case),
        retained=production_costs.all_quality_scores(case),
        break_even=production_costs.break_even(case.costs.bill),
        lost=lost[:EXAMPLES],
        won=won[:EXAMPLES],
        conditions=_conditions(case),
        priced=priced(case),
        metric=case.judgement.metric.replace("_", " "),
        **words.FORMATS,
    )


def _conditions(case: Case) -> dict[str, str]:
    subject, card = case.subject, case.challenger.get(HOLDOUT)
    named = {
        "snapshot": subject.snapshot,
        "holdout version": subject.holdout_version,
        "look": f"look {case.judgement.look} at this holdout, at alpha {case.judgement.alpha:.4g}",
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


SHOWN_CHARACTERS = 600  # longer requests and answers are cut, so that five of them stay readable

SHOWN = 5  # the most requests on which the two differ


def brief(case: Case, shown: Sequence[Figure]) -> str:
    """Return the brief as Markdown."""
    lost, won = differing(case)
    return templates.render(
        "gate/brief.md.j2",
        case=case,
        sentence=words.verdict_sentence(case),
        reasons=(*case.judgement.reasons, *words.term_sentences(case.judgement)),
        baselines=baseline_comparison.hold(case),
        figures=shown,
        change=words.change_sentence(case),
        kept=production_costs.sentence(case),
        break_even=production_costs.break_even(case.costs.bill),
        charges=production_costs.cost_rows(case.costs),
        **words.FORMATS,
        lost=len(lost),
        won=len(won),
        differing=[
            (
                difference in won,
                difference.challenger.example_id,
                _brief_answers(case.subject.opponent_name, difference),
            )
            for difference in take_turns(lost, won, SHOWN)
        ],
    )


def _brief_answers(opponent: str, difference: Difference) -> str:
    texts = {
        "asked": difference.challenger.request,
        "right": difference.challenger.reference,
        opponent: difference.opponent.output,
        "challenger": difference.challenger.output,
    }
    return "\n".join(line for label, text in texts.items() for line in _wrapped(label, text))


def _wrapped(label: str, text: str) -> list[str]:
    line = templates.visible(" ".join(text.split()))
    if len(line) > SHOWN_CHARACTERS:
        line = line[:SHOWN_CHARACTERS] + " ..."
    return [f"{label}:", *textwrap.wrap(line, 56, initial_indent="  ", subsequent_indent="  ")]
