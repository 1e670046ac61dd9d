"""Make requests that no offered tool fits, from calls: the logs of a working application hold few.

The tool that was called is taken out of the offer, or another request's tool stands in for the
whole offer, so that nothing but the tools tells the call from the made request (irrelevance
augmentation: Hammer, arXiv:2410.04587). By chance a tool may fit after all, so a share is enough.
Made rows are learned from, never tested on.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from components.train import offers
from components.train.offers import Request, Tool


def make(requests: Sequence[Request], share: float, seed: int) -> list[Request]:
    """Ask a share of the calls again, with tools that don't fit.

    Args:
        requests: What is learned from; their tools are the only ones offered in what is made.
        share: Of the requests that are answered by a call.
        seed: Draws which, and what they offer instead.

    Returns:
        The made requests; each has the commonest answer of those where no tool was called.

    Raises:
        ValueError: None of the requests shows how to answer when no tool fits.
    """
    draw = random.Random(seed)
    calls = [request for request in requests if request.tools and request.called]
    chosen = draw.sample(calls, round(share * len(calls)))
    if not chosen:
        return []
    refusal = _commonest(request.answer for request in requests if request.offers_in_vain)
    known = offers.distinct(requests)
    made = [(one, _unfit(one, known, draw)) for one in chosen]
    return [replace(one, tools=tools, called=(), answer=refusal) for one, tools in made if tools]


def _unfit(request: Request, known: Sequence[Tool], draw: random.Random) -> list[Tool]:
    """Offer the tools that were not called, or one of another request; none if there is none."""
    others = [tool for tool in request.tools if offers.name(tool) not in request.called]
    if others and draw.random() < 0.5:
        return others
    strange = offers.strange_to(request, known)
    return [draw.choice(strange)] if strange else others


def _commonest(answers: Iterable[str]) -> str:
    counts = Counter(answers)
    if not counts:
        raise ValueError(
            "making requests that no tool fits (irrelevant_share): no example shows what the "
            "application answers then; set irrelevant_share to 0, or log such requests"
        )
    return max(sorted(counts), key=lambda answer: counts[answer])
