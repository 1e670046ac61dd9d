"""The page that a person reads before deciding: verdict, scores, differences, training set.

It is the report's shorter sister, in Markdown, as Prefect shows it.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from components.gate import terms
from components.gate.report import baselines, charges, production, telling
from components.gate.report.apart import by_turns, differing
from components.gate.report.case import Case
from components.gate.report.figures import Figure
from components.gate.report.numbers import between, counted, points, share
from components.pages import jinja
from components.scorecard import Difference

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
    lost, won = differing(case)
    return jinja.render(
        "gate/brief.md.j2",
        case=case,
        sentence=telling.sentence(case),
        reasons=(*case.judgement.reasons, *terms.sentences(case.judgement)),
        baselines=baselines.hold(case),
        figures=figures,
        scores=[_score(figure) for figure in figures],
        picture=jinja.inline(picture),
        change=telling.change(case),
        kept=production.sentence(case),
        break_even=production.break_even(case.costs.bill),
        charges=charges.charges(case.costs),
        lost=len(lost),
        won=len(won),
        differing=[
            (one in won, one.challenger.example_id, _answers(case.subject.opponent_name, one))
            for one in by_turns(lost, won, SHOWN)
        ],
    )


def _score(figure: Figure) -> list[str]:
    effect = figure.effect
    return [
        effect.name,
        share(figure.opponent),
        share(figure.challenger),
        points(effect.difference),
        between(effect.low, effect.high),
        str(effect.n),
        counted(effect.clusters),
        figure.said or "only shown",
    ]


def _answers(opponent: str, difference: Difference) -> str:
    texts = {
        "asked": difference.challenger.request,
        "right": difference.challenger.reference,
        opponent: difference.opponent.output,
        "challenger": difference.challenger.output,
    }
    return "\n".join(line for label, text in texts.items() for line in _wrapped(label, text))


def _wrapped(label: str, text: str) -> list[str]:
    """Return a label and, indented under it, at most ``SHOWN_CHARACTERS`` of the text."""
    line = " ".join(text.split())
    if len(line) > SHOWN_CHARACTERS:
        line = line[:SHOWN_CHARACTERS] + " ..."
    return [f"{label}:", *textwrap.wrap(line, 56, initial_indent="  ", subsequent_indent="  ")]
