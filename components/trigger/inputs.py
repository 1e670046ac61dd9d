"""Tell whether people ask for other things than when the workload was last curated.

Half of the requests of before say what is usual, the other half what ranks among usual ones, and
the new ones are ranked among these one by one (an inductive conformal predictor). What counts is
how rare a request's words, its tools and its client are, and how long it is. Each has a capital of
its own; the mean of martingales is one, so their mean is tested.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from components import warehouse
from components.trigger import martingale
from components.trigger.settings import Trigger
from components.trigger.signs import Sign
from components.warehouse import Connection

MOST = 2000
"""So many requests of before are compared with, the newest."""

FEWEST = 40
"""With fewer of before nothing is usual."""

WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Request:
    """The first request of a conversation."""

    interaction_id: str
    client_id: str
    question: str
    tool_names: str
    is_new: bool


def look(con: Connection, workload_id: str, since: datetime, settings: Trigger) -> Sign | None:
    """Compare the requests after ``since`` with those before it; ``None`` if these are too few."""
    values = {"workload_id": workload_id, "since": since, "most": MOST}
    found = [*warehouse.read(con, "marts/first_requests", Request, **values)]
    return drift([one for one in found if not one.is_new], [r for r in found if r.is_new], settings)


def drift(before: Sequence[Request], new: Sequence[Request], settings: Trigger) -> Sign | None:
    """Bet on drift, request by request; see ``components.trigger.martingale`` for the bound.

    Args:
        before: Requests of before, in any order.
        new: The requests since, in order of time.
        settings: Holds the bound.

    Returns:
        The highest capital so far beside 1 / alpha, and which trait has changed most.
    """
    usual, ranked = before[::2], before[1::2]
    if len(ranked) < FEWEST // 2:
        return None
    ties = [martingale.tie(one.interaction_id) for one in new]
    grown = {
        trait: martingale.capital(
            martingale.p_values(map(score, ranked), [score(one) for one in new], ties), "either"
        )
        for trait, score in scores(usual).items()
    }
    mean = [math.fsum(step) / len(grown) for step in zip(*grown.values(), strict=True)]
    highest = max(mean, default=1.0)
    most = max(grown, key=lambda trait: max(grown[trait], default=0))
    told = (
        f"drift of {len(new)} new requests against {len(before)} of before: capital "
        f"{highest:.3g} of {1 / settings.alpha:.3g}, most by their {most}"
    )
    return Sign("inputs", highest, 1 / settings.alpha, told)


def scores(usual: Sequence[Request]) -> dict[str, Callable[[Request], float]]:
    """Give for each trait how unlike the usual ones a request is: surprise in bits, or length."""
    words = _surprise(word for one in usual for word in WORD.findall(one.question.lower()))
    tools = _surprise(one.tool_names for one in usual)
    clients = _surprise(one.client_id for one in usual)

    def rarity(one: Request) -> float:
        found = WORD.findall(one.question.lower())
        return math.fsum(map(words, found)) / max(1, len(found))

    return {
        "words": rarity,
        "length": lambda one: float(len(one.question)),
        "tools": lambda one: tools(one.tool_names),
        "client": lambda one: clients(one.client_id),
    }


def _surprise(names: Iterable[str]) -> Callable[[str], float]:
    """Give -log2 of a name's share, with one sighting added to each and to what was never seen."""
    counts = Counter(names)
    total = counts.total() + len(counts) + 1
    return lambda name: -math.log2((counts[name] + 1) / total)
