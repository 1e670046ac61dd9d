"""The page that a person reads before deciding: verdict, scores, differences, what is being changed.

Requests and answers come from users, so they stand in code fences and can't become markup.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.gate.evidence import Subject
from components.gate.judge import Judgement
from components.scorecard import METRICS, Difference, Scorecard

SHOWN_CHARACTERS = 600
"""Longer requests and answers are cut, so that five of them stay readable."""


def write(
    subject: Subject,
    judgement: Judgement,
    challenger: Scorecard,
    opponent: Scorecard,
    differences: Sequence[Difference],
    *,
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
            f"base `{subject.base[:16]}`.",
            "",
        ]
    )


def with_picture(brief: str, picture: Path, digest: str) -> str:
    """Put the picture of the scores and the evidence digest under the brief."""
    image = base64.b64encode(picture.read_bytes()).decode()
    return (
        f"{brief}\n![Scores with 95 % intervals](data:image/png;base64,{image})\n\n"
        f"Evidence digest `{digest}`: the decision is bound to it.\n"
    )


def _table(subject: Subject, challenger: Scorecard, opponent: Scorecard) -> list[str]:
    rows = [
        f"| {metric} | {_share(opponent, metric)} | {_share(challenger, metric)} "
        f"| {challenger.scores[metric].n} | {meaning} |"
        for metric, meaning in METRICS.items()
    ]
    return [
        f"| score | {subject.opponent_name} | challenger | n | what it is the share of |",
        "| --- | ---: | ---: | ---: | --- |",
        *rows,
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
    width = max(len(label) for label in lines)
    body = [f"{label:<{width}}  {_cut(text)}" for label, text in lines.items()]
    longest = max((len(run) for run in re.findall(r"`+", "\n".join(body))), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + "text", *body, fence, ""]


def _cut(text: str) -> str:
    """Give one line of at most ``SHOWN_CHARACTERS`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + " ..."
