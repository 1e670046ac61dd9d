"""The page that a person reads before deciding: verdict, scores, differences, training set.

It is the report's shorter sister, in Markdown, as Prefect shows it. Requests and answers come from
users, so they stand in code fences and can't become markup.
"""

import base64
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from components import markdown
from components.gate import terms
from components.gate.report import baselines, charges, production, telling
from components.gate.report.apart import apart, by_turns
from components.gate.report.baselines import BaselineComparison
from components.gate.report.case import Case
from components.gate.report.figures import Figure
from components.gate.report.numbers import between, counted, points, share
from components.gate.report.page import visible
from components.scorecard import HOLDOUT, Difference

SHOWN_CHARACTERS = 600
"""Longer requests and answers are cut, so that five of them stay readable."""

SHOWN = 5
"""Requests on which the two differ."""


def write(case: Case, figures: Sequence[Figure], picture: Path) -> str:
    """Write the brief as Markdown.

    Args:
        case: What the evidence is about.
        figures: Every figure of both models.
        picture: PNG of their differences; it goes into the page, which then stands alone.
    """
    subject, judgement, held = case.subject, case.judgement, baselines.hold(case)
    return "\n".join(
        [
            f"## {subject.workload}: may adapter `{subject.adapter}` replace "
            f"the {subject.opponent_name}?",
            "",
            f"**Verdict: {judgement.outcome}.** {_plain(telling.sentence(case))}",
            "",
            *[f"- {_plain(line)}" for line in (*judgement.reasons, *terms.sentences(judgement))],
            *(["", f"*{case.note}*"] if case.note else []),
            "",
            *[f"**{_plain(line)}**\n" for line in held.unbeaten],
            *_scores(subject.opponent_name, figures),
            "",
            *_baselines(held),
            f"![Differences with their intervals](data:image/png;base64,{_base64(picture)})",
            "",
            "### What would change",
            "",
            *[f"{_plain(line)}\n" for line in telling.change(case)],
            "### What it costs",
            "",
            _plain(production.sentence(case)),
            "",
            _plain(production.break_even(case.costs.bill)),
            "",
            *_costs(case),
            "",
            "### Where the two differ",
            "",
            *_differing(case),
            "### What it was trained on",
            "",
            "| rows | verdict of the rules |",
            "| ---: | --- |",
            *[f"| {count} | {verdict} |" for verdict, count in sorted(case.counts.items())],
            "",
            *[f"{_plain(sentence)}\n" for sentence in case.learned],
            f"Snapshot `{subject.snapshot}`, holdout version `{subject.holdout_version}`, "
            f"base `{subject.base}`. Evidence digest `{case.digest}`: the decision is bound to it. "
            "`flywheel report` opens the whole report.",
            "",
        ]
    )


def _scores(opponent: str, figures: Sequence[Figure]) -> list[str]:
    head = ("score", opponent, "challenger", "difference", "interval", "n", "clusters", "found")
    rows = [
        (
            _plain(one.effect.name),
            share(one.opponent),
            share(one.challenger),
            points(one.effect.difference),
            between(one.effect.low, one.effect.high),
            str(one.effect.n),
            counted(one.effect.clusters),
            one.said or "only shown",
        )
        for one in figures
    ]
    meanings = [f"- {_plain(one.effect.name)}: {one.meaning}" for one in figures if one.meaning]
    return [*markdown.table(head, rows), "", *meanings]


def _baselines(held: BaselineComparison) -> list[str]:
    if not held.table:
        return []
    head, *rows = held.table
    told = [f"{_plain(line)}\n" for line in held.others]
    return ["### Beside what needs no training", "", *markdown.table(head, rows), "", *told]


def _costs(case: Case) -> list[str]:
    rows = [
        (one.name, one.production or "-", one.challenger, one.how)
        for one in charges.charges(case.costs)
    ]
    return markdown.table(("", "production", "challenger", "how"), rows)


def _plain(text: str) -> str:
    """Keep names that come from traffic from becoming markup."""
    flat = " ".join(visible(text).split()).replace("://", ": //")  # a bare link is one, too
    return re.sub(r"[\[\]<>*`|!#~\\&]", "?", flat)


def _differing(case: Case) -> list[str]:
    """Show losses and wins by turns, each with the id by which a rejection can blame it."""
    ours, theirs = case.challenger.get(HOLDOUT), case.opponent.get(HOLDOUT)
    if ours is None or theirs is None or case.judgement.metric not in ours.metrics:
        return []
    lost, won = apart(ours, theirs, case.judgement.metric)
    is_lost = {one.challenger.doc_hash for one in lost}
    lines = [f"{len(won)} requests are answered better than now, {len(lost)} worse.", ""]
    for one in by_turns(lost, won, SHOWN):
        asked = one.challenger
        word = "Worse" if asked.doc_hash in is_lost else "Better"
        lines += [f"**{word} than now**, request {markdown.code(asked.example_id)}:", ""]
        lines += _difference(case.subject.opponent_name, one)
    return lines


def _difference(opponent: str, difference: Difference) -> list[str]:
    lines = {
        "asked": difference.challenger.request,
        "right": difference.challenger.reference,
        opponent: difference.opponent.output,
        "challenger": difference.challenger.output,
    }
    body = [line for label, text in lines.items() for line in _wrapped(label, text)]
    longest = max((len(run) for run in re.findall(r"`+", "\n".join(body))), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + "text", *body, fence, ""]


def _wrapped(label: str, text: str) -> list[str]:
    """Give a label and, indented under it, at most ``SHOWN_CHARACTERS`` of the text."""
    line = " ".join(text.split())
    if len(line) > SHOWN_CHARACTERS:
        line = line[:SHOWN_CHARACTERS] + " ..."
    return [f"{label}:", *textwrap.wrap(line, 56, initial_indent="  ", subsequent_indent="  ")]


def _base64(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()
