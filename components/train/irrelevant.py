"""Make requests that no offered tool fits, from calls: the logs of a working application hold few.

The tool that was called is taken out of the offer, or another request's tool stands in for the
whole offer, so that nothing but the tools tells the call from the made request (irrelevance
augmentation: Hammer, arXiv:2410.04587). By chance a tool may fit after all, so a share is enough.
Made rows are learned from, never tested on.

Their answer has to be what the application says when no tool fits. An answer without a call is
often something else, such as a question for what a call still needs: taught in place of calls it
unlearns calling. So unless the log shows one refusal clearly, nothing is made.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from components import prompt
from components.train import offers
from components.train.offers import Request, Tool

LEAST = 3
"""How often a refusal has to stand in the log."""

SHARE = 1 / 2
"""Of the answers to users that call none of the offered tools: how many have to be that refusal."""

_ASKS = re.compile("[?\uff1f\u061f]")
_DENIES = re.compile(
    r"""\b(?: no|not|none|nothing|never|cannot|unable|sorry | \w+n['\u2019]t
    | kein\w*|nicht\w*|leider | ne|pas|aucun\w*|impossible|d\u00e9sol\w* | ning\u00fan|ningun\w*
    | n\u00e3o|nenhum\w* | non|nessun\w* | geen|niet | ingen\w*|inte|ikke | nie|\u017cad\w*|brak
    | \u043d\u0435|\u043d\u0435\u0442 | yok|de\u011fil | tidak )\b
    | [\u6ca1\u65e0\u4e0d\u7121]|\u306a\u3044|\u307e\u305b\u3093|\uc5c6|\uc54a""",
    re.IGNORECASE | re.VERBOSE,
)
"""How texts in some languages say that something is not; a refusal in others is not found."""


def make(requests: Sequence[Request], share: float, seed: int) -> tuple[list[Request], str | None]:
    """Ask a share of the calls again, with tools that don't fit.

    Args:
        requests: What is learned from; their tools are the only ones offered in what is made.
        share: Of the requests that are answered by a call.
        seed: Draws which, and what they offer instead.

    Returns:
        The made requests, each with the application's refusal as its answer, and ``None``; or none
        and why there are none, if some were wanted.
    """
    draw = random.Random(seed)
    calls = [request for request in requests if request.tools and request.called]
    chosen = draw.sample(calls, round(share * len(calls)))
    if not chosen:
        return [], None
    refusal, objection = find_refusal(requests)
    if refusal is None:
        return [], objection
    known = offers.distinct(requests)
    made = [(one, _unfit(one, known, draw)) for one in chosen]
    fitting = [replace(one, tools=tools, called=(), answer=refusal) for one, tools in made if tools]
    return fitting, None if fitting else "all requests offer the same one tool"


def find_refusal(requests: Sequence[Request]) -> tuple[str | None, str]:
    """Find what the application says when no tool fits.

    Returns:
        The refusal, or ``None`` and why none is known. The reason holds no word of any row.
    """
    answers = [one.answer for one in requests if one.offers_in_vain and _is_first_word(one)]
    if not answers:
        return None, "no user's request was answered without a call where tools were offered"
    counts = Counter(map(_plain, answers))
    plain, count = max(sorted(counts.items()), key=lambda one: one[1])
    said = f"the commonest of {len(answers)} answers without a call"
    if count < max(LEAST, SHARE * len(answers)):
        return None, f"{said} stands {count} times, wants {LEAST} at least and half of all"
    if _ASKS.search(plain) or not _DENIES.search(plain):
        return None, f"{said} asks something, or doesn't say that something is not or can't be"
    next_calls = [*_next_turns(requests, plain)]
    if len(next_calls) >= LEAST and sum(next_calls) > len(next_calls) / 2:
        return None, (
            f"{said} came before a call in {sum(next_calls)} of {len(next_calls)} conversations "
            "that went on, so it asks for what a call needs"
        )
    return next(one for one in answers if _plain(one) == plain), ""


def _is_first_word(request: Request) -> bool:
    """Tell whether a request is a user's: what follows on a tool's result found its tool."""
    return bool(request.messages) and request.messages[-1].get("role") == "user"


def _next_turns(requests: Sequence[Request], plain: str) -> Iterator[bool]:
    """Tell of each conversation that has this answer and another after it whether that one calls.

    What a later request of the conversation repeats is counted once.
    """
    known: set[str] = set()
    for request in requests:
        turns = [at for at, one in enumerate(request.messages) if one.get("role") == "assistant"]
        calls = [bool(request.messages[at].get("tool_calls")) for at in turns]
        for at, calls_next in zip(turns, [*calls, bool(request.called)][1:], strict=True):
            beginning = str(request.messages[: at + 1])
            if _plain(prompt.text_of(request.messages[at])) == plain and beginning not in known:
                known.add(beginning)
                yield calls_next


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _unfit(request: Request, known: Sequence[Tool], draw: random.Random) -> list[Tool]:
    """Offer the tools that were not called, or one of another request; none if there is none."""
    others = [tool for tool in request.tools if offers.name(tool) not in request.called]
    if others and draw.random() < 0.5:
        return others
    strange = offers.strange_to(request, known)
    return [draw.choice(strange)] if strange else others
