"""Write the evidence of a case: charts, report, brief for the approval form, all requests."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure as Chart

from components.gate import evidence_folder
from components.gate.comparability import Measured
from components.gate.evidence_folder import REPORT, SAMPLES, Evidence, TurnReference
from components.gate.policy import Policy
from components.gate.report import (
    baseline_comparison,
    production_costs,
    report_charts,
    words,
)
from components.gate.report.report_charts import Past, Point
from components.gate.report.side_by_side import Figure, differing, figures, take_turns
from components.gate.report.words import Case
from components.pages import charts, templates
from components.scorecard import HOLDOUT, PRODUCTION, Difference, Sample, Scorecard, share_interval
from components.store import manifest, output_folders
from components.store.manifest import EvidenceManifest

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


PICTURES = {
    "scores": "scores.png",
    "differences": "differences.png",
    "slices": "slices.png",
    "cost": "cost.png",
    "break_even": "break_even.png",
    "history": "history.png",
}

ASSUMED_RIGHT = f"{PRODUCTION}, assumed right"

EXAMPLES = 10  # the most lost, and the most won, requests that are shown


def write(case: Case, folder: Path, *, this: Past) -> list[Figure]:
    """Write charts, rows and the report; return the shown figures. ``this`` is this turn."""
    shown = figures(case.challenger, case.opponent, case.judgement)
    drawn: dict[str, Path] = {}
    for name, chart in _draw(case, shown, this).items():
        drawn[name] = folder / PICTURES[name]
        charts.save(chart, drawn[name])
    write_answers(folder / SAMPLES, case.challenger, case.opponent)
    manifest.write_atomically(folder / REPORT, html(case, shown, drawn))
    return shown


def _draw(case: Case, drawn_figures: Sequence[Figure], this: Past) -> dict[str, Chart]:
    metric, opponent = case.judgement.metric, case.subject.opponent_name
    currency = case.costs.bill.currency
    cards = {opponent: case.opponent.get(HOLDOUT), "challenger": case.challenger.get(HOLDOUT)}
    measured = {name: card for name, card in cards.items() if card is not None}
    effects = [figure.effect for figure in drawn_figures]
    drawn = {"differences": report_charts.draw_differences(effects)}
    if measured:
        drawn["scores"] = report_charts.draw_scores(measured)
    if case.turns:
        drawn["history"] = report_charts.draw_history([*case.turns, this], metric=metric)
    if slices := case.judgement.slices:
        drawn["slices"] = report_charts.draw_slices(slices, opponent=opponent)
    if shown := priced(case):
        drawn["cost"] = report_charts.draw_pareto(shown, metric=metric, currency=currency)
    if (even := case.costs.bill.break_even) is not None:
        drawn["break_even"] = report_charts.draw_break_even(even, currency=currency)
    return drawn


def priced(case: Case) -> list[Point]:
    """Return the models whose price and score are both known, priced for 1,000 requests."""
    metric = case.judgement.metric
    cards: dict[str, Scorecard | None] = {
        **{name: card for name, card in case.others.items() if name != PRODUCTION},
        PRODUCTION: production_costs.scored(case, metric),
        case.subject.opponent_name: case.opponent.get(HOLDOUT),
        "challenger": case.challenger.get(HOLDOUT),
    }
    known: list[Point] = []
    for name, card in cards.items():
        price = case.costs.request.get(name)
        score = card.scores[metric].value if card and metric in card.scores else None
        if card is None or price is None or price.value is None or score is None:
            continue
        low, high = share_interval(card, metric) or (None, None)
        known.append(Point(name, 1000 * price.value, score, low, high))
    paid, taken = case.costs.request.get(PRODUCTION), production_costs.taken_score(case)
    if taken is not None and paid and paid.value is not None:
        known.append(Point(ASSUMED_RIGHT, 1000 * paid.value, taken, None, None))
    return known


def html(case: Case, drawn_figures: Sequence[Figure], pictures: Mapping[str, Path]) -> str:
    """Return the report's page with the charts that exist, by their names in ``PICTURES``."""
    lost, won = differing(case)
    return templates.render(
        "components/gate/report/page.html.j2",
        case=case,
        opponent=case.subject.opponent_name,
        sentence=words.verdict_sentence(case),
        reasons=(*case.judgement.reasons, *words.term_sentences(case.judgement)),
        change=words.change_sentence(case),
        baselines=baseline_comparison.hold(case),
        scores=[figure for figure in drawn_figures if figure.effect.kind != "guard"],
        guards=[figure for figure in drawn_figures if figure.effect.kind == "guard"],
        charges=production_costs.cost_rows(case.costs),
        kept=production_costs.sentence(case),
        retained=production_costs.all_quality_scores(case),
        break_even=production_costs.break_even(case.costs.bill),
        lost=lost[:EXAMPLES],
        won=won[:EXAMPLES],
        conditions=_conditions(case),
        pictures=pictures,
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


def write_brief(case: Case, shown: Sequence[Figure], picture: Path) -> str:
    """Return the brief as Markdown, with the PNG of the figures' differences in it."""
    lost, won = differing(case)
    return templates.render(
        "components/gate/brief.md.j2",
        case=case,
        sentence=words.verdict_sentence(case),
        reasons=(*case.judgement.reasons, *words.term_sentences(case.judgement)),
        baselines=baseline_comparison.hold(case),
        figures=shown,
        picture=templates.inline(picture),
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
                _answers(case.subject.opponent_name, difference),
            )
            for difference in take_turns(lost, won, SHOWN)
        ],
    )


def _answers(opponent: str, difference: Difference) -> str:
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


def write_evidence(
    case: Case, folder: Path, policy: Policy, turn: TurnReference, *, now: datetime
) -> Evidence:
    """Write the evidence of a turn: pictures, report, brief, every request; the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = dict(evidence_folder.scores(case.challenger[HOLDOUT], case.opponent[HOLDOUT]))
    if policy.task in case.challenger and policy.task in case.opponent:
        scores |= evidence_folder.scores(case.challenger[policy.task], case.opponent[policy.task])
    shown = write(
        case,
        folder,
        this=_past(
            f"{now:%m-%d}",
            case.subject.holdout_version,
            case.judgement.outcome,
            scores.get(case.judgement.metric, {}),
        ),
    )
    text = write_brief(case, shown, folder / PICTURES["differences"])
    return evidence_folder.finish(
        folder,
        case.subject,
        case.judgement,
        policy,
        scores,
        brief=text,
        now=now,
        account=production_costs.account(case),
        baselines=baseline_comparison.baseline_scores(case),
        baseline_sentences=baseline_comparison.hold(case).sentences,
        turn=turn,
    )


def _past(day: str, holdout_version: str, outcome: str, scored: Mapping[str, float | None]) -> Past:
    figures = (scored.get(name) for name in ("challenger", "low", "high", "opponent"))
    return Past(day, holdout_version, outcome, *figures)


def earlier_turns(root: Path, metric: str) -> list[Past]:
    """List the results of the turns with evidence in a folder on a metric, oldest first."""
    folders = output_folders.find(root)
    records = [EvidenceManifest.read(path) for path in folders]
    return [
        _past(
            record.created_at[5:10],
            record.subject.holdout_version,
            record.judgement.outcome,
            record.scores.get(metric, {}),
        )
        for record in sorted(records, key=lambda record: record.age)
    ]
