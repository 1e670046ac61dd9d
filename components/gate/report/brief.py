"""The Markdown brief of the approval form: verdict, scores, differences, training set."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from components.gate.report import baseline_comparison, production_costs, words
from components.gate.report.side_by_side import Figure, differing, take_turns
from components.gate.report.words import Case
from components.pages import templates
from components.scorecard import Difference

SHOWN_CHARACTERS = 600  # longer requests and answers are cut, so that five of them stay readable

SHOWN = 5  # the most requests on which the two differ


def write(case: Case, figures: Sequence[Figure], picture: Path) -> str:
    """Return the brief as Markdown, with the PNG of the figures' differences in it."""
    lost, won = differing(case)
    return templates.render(
        "components/gate/brief.md.j2",
        case=case,
        sentence=words.verdict_sentence(case),
        reasons=(*case.judgement.reasons, *words.term_sentences(case.judgement)),
        baselines=baseline_comparison.hold(case),
        figures=figures,
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
