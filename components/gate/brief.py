"""The page that a person reads before deciding: verdict, scores, differences, training set.

Requests and answers come from users, so they stand in code fences and can't become markup.
"""

import base64
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.gate.evidence import Subject
from components.gate.judgement import Judgement
from components.scorecard import Difference, Scorecard

SHOWN_CHARACTERS = 600
"""Longer requests and answers are cut, so that five of them stay readable."""


def write(
    subject: Subject,
    judgement: Judgement,
    challenger: Scorecard,
    opponent: Scorecard,
    differences: Sequence[Difference],
    *,
    digest: str,
    picture: Path,
    counts: Mapping[str, int],
    note: str,
) -> str:
    """Write the brief as Markdown.

    Args:
        subject: What was compared.
        judgement: What the gate made of it.
        challenger: The adapter that asks to be champion.
        opponent: The champion, or the base before there is one.
        differences: Requests on which only one of the two was right.
        digest: The evidence digest that a decision is bound to.
        picture: PNG of the scores; it goes into the page, which then stands alone.
        counts: The snapshot's rows by verdict.
        note: The workload's own note to whoever decides; may be empty.
    """
    return "\n".join(
        [
            f"## {subject.workload}: may adapter `{subject.adapter}` replace "
            f"the {subject.opponent_name}?",
            "",
            f"**Verdict: {judgement.outcome}.** {'; '.join(judgement.reasons)}.",
            *(["", f"*{note}*"] if note else []),
            "",
            *_table(subject, challenger, opponent),
            "",
            f"![Scores with 95 % intervals](data:image/png;base64,{_base64(picture)})",
            "",
            "### Where the two differ",
            "",
            *[line for difference in differences for line in _difference(subject, difference)],
            "### What it was trained on",
            "",
            "| rows | verdict of the rules |",
            "| ---: | --- |",
            *[f"| {count} | {verdict} |" for verdict, count in sorted(counts.items())],
            "",
            f"Snapshot `{subject.snapshot}`, holdout version `{subject.holdout_version}`, "
            f"base `{subject.base}`. Evidence digest `{digest}`: the decision is bound to it.",
            "",
        ]
    )


def _table(subject: Subject, challenger: Scorecard, opponent: Scorecard) -> list[str]:
    rows = [
        f"| {metric} | {_share(opponent, metric)} | {_share(challenger, metric)} "
        f"| {challenger.scores[metric].n} |"
        for metric in challenger.metrics
    ]
    return [
        f"| score | {subject.opponent_name} | challenger | n |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        *[f"- {name}: {metric.meaning}" for name, metric in challenger.metrics.items()],
    ]


def _share(card: Scorecard, metric: str) -> str:
    value = card.scores[metric].value
    return "not measured" if value is None else f"{value:.1%}"


def _difference(subject: Subject, difference: Difference) -> list[str]:
    lines = {
        "asked": difference.challenger.request,
        "right": difference.challenger.reference,
        subject.opponent_name: difference.opponent.output,
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
