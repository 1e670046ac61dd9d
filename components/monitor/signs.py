"""Signs that a turn is worth its price: new feedback, input drift, falling votes."""

import bisect
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from components.monitor.settings import Trigger
from components.store import warehouse
from components.store.warehouse import Connection

Kind: TypeAlias = Literal["feedback", "inputs", "votes"]


@dataclass(frozen=True, slots=True)
class Sign:
    """One figure beside the bound that it has to reach, and what it tells in words."""

    kind: Kind
    figure: float
    bound: float
    told: str

    @property
    def is_given(self) -> bool:
        """Whether it asks for a turn."""
        return self.figure >= self.bound


JUMP = 0.01
"""Share of the capital that changes its bet at each step, as in the paper's experiments."""

Direction: TypeAlias = Literal["up", "either"]
BETS: dict[Direction, tuple[float, ...]] = {"up": (-1.0, 0.0), "either": (-1.0, 0.0, 1.0)}
"""Slopes of the bets 1 + e (p - 1/2): small p-values are won on by a negative one."""


def rank_p_values(
    before: Iterable[float], scores: Sequence[float], ties: Sequence[float]
) -> list[float]:
    """Rank each score among all that came before it and itself; uniform while nothing changes.

    Args:
        before: Scores of the time that the series is compared with.
        scores: The series, in order of time. A high score is a strange observation.
        ties: A number in [0, 1) for each, drawn without a look at the scores, that breaks ties.

    Returns:
        (number higher + tie * number equal, itself included) / number of all, for each score.
    """
    seen = sorted(before)
    found: list[float] = []
    for score, tie in zip(scores, ties, strict=True):
        bisect.insort(seen, score)
        low, high = bisect.bisect_left(seen, score), bisect.bisect_right(seen, score)
        found.append((len(seen) - high + tie * (high - low)) / len(seen))
    return found


def martingale_capital(p_values: Iterable[float], direction: Direction) -> list[float]:
    """Bet one unit against uniform p-values and give what it has grown to after each.

    Args:
        p_values: Each in [0, 1].
        direction: ``up`` wins where scores rise, ``either`` where they rise or fall.
    """
    bets = BETS[direction]
    held = [1 / len(bets)] * len(bets)
    grown: list[float] = []
    for p in p_values:
        share = JUMP * sum(held) / len(bets)
        held = [
            ((1 - JUMP) * one + share) * (1 + slope * (p - 0.5))
            for one, slope in zip(held, bets, strict=True)
        ]
        grown.append(sum(held))
    return grown


def tie_breaker(name: str) -> float:
    """Draw a number in [0, 1) from an observation's id: the same in every look."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def feedback_sign(
    con: Connection, workload_id: str, since: datetime, settings: Trigger
) -> Sign | None:
    """Compare the signals that were loaded after ``since`` with the number that is worth a turn."""
    if settings.min_feedback is None:
        return None
    found = warehouse.select(con, "marts/new_feedback", workload_id=workload_id, since=since)
    count = int(str(found[0]["signals"]))
    told = f"{count} new feedback signals (a turn is worth {settings.min_feedback})"
    return Sign("feedback", count, settings.min_feedback, told)


MOST_REQUESTS = 2000
"""So many requests of before are compared with, the newest."""

FEWEST_REQUESTS = 40
"""With fewer of before nothing is usual."""

WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request of a conversation."""

    interaction_id: str
    client_id: str
    question: str
    tool_names: str
    is_new: bool


def input_sign(
    con: Connection, workload_id: str, since: datetime, settings: Trigger
) -> Sign | None:
    """Compare the requests after ``since`` with those before it; ``None`` if these are too few."""
    values = {"workload_id": workload_id, "since": since, "most": MOST_REQUESTS}
    found = [*warehouse.read(con, "marts/first_requests", FirstRequest, **values)]
    return input_drift(
        [one for one in found if not one.is_new], [r for r in found if r.is_new], settings
    )


def input_drift(
    before: Sequence[FirstRequest], new: Sequence[FirstRequest], settings: Trigger
) -> Sign | None:
    """Bet on drift, request by request; see ``components.monitor.signs`` for the bound.

    Args:
        before: Requests of before, in any order.
        new: The requests since, in order of time.
        settings: Holds the bound.

    Returns:
        The highest capital so far beside 1 / alpha, and which trait has changed most.
    """
    usual, ranked = before[::2], before[1::2]
    if len(ranked) < FEWEST_REQUESTS // 2:
        return None
    ties = [tie_breaker(one.interaction_id) for one in new]
    grown = {
        trait: martingale_capital(
            rank_p_values(map(score, ranked), [score(one) for one in new], ties), "either"
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


def scores(usual: Sequence[FirstRequest]) -> dict[str, Callable[[FirstRequest], float]]:
    """Give for each trait how unlike the usual ones a request is: surprise in bits, or length."""
    words = _surprise(word for one in usual for word in WORD.findall(one.question.lower()))
    tools = _surprise(one.tool_names for one in usual)
    clients = _surprise(one.client_id for one in usual)

    def rarity(one: FirstRequest) -> float:
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


MOST_VOTES = 500
"""So many votes on answers of before are compared with, the newest."""

FEWEST_VOTES = 20
"""With fewer votes of before nobody knows what was usual."""


@dataclass(frozen=True, slots=True)
class ThumbVote:
    """A thumb on an answer."""

    feedback_id: str
    is_down: bool
    is_new: bool


def vote_sign(con: Connection, workload_id: str, since: datetime, settings: Trigger) -> Sign | None:
    """Compare votes on answers from ``since`` on, when the champion came, with those of before.

    ``None`` if these are too few.
    """
    values = {"workload_id": workload_id, "since": since, "most": MOST_VOTES}
    found = [*warehouse.read(con, "marts/votes_in_order", ThumbVote, **values)]
    return falling_votes(
        [one for one in found if not one.is_new], [v for v in found if v.is_new], settings
    )


def falling_votes(
    before: Sequence[ThumbVote], new: Sequence[ThumbVote], settings: Trigger
) -> Sign | None:
    """Bet on more thumbs down, vote by vote; see ``components.monitor.signs`` for the bound.

    Returns:
        The highest capital so far beside 1 / alpha, and both shares of thumbs down.
    """
    if len(before) < FEWEST_VOTES:
        return None
    ranks = rank_p_values(
        [float(one.is_down) for one in before],
        [float(one.is_down) for one in new],
        [tie_breaker(one.feedback_id) for one in new],
    )
    highest = max(martingale_capital(ranks, "up"), default=1.0)
    told = (
        f"thumbs down {_share(before)} before the champion, {_share(new)} since: capital "
        f"{highest:.3g} of {1 / settings.alpha:.3g}"
    )
    return Sign("votes", highest, 1 / settings.alpha, told)


def _share(votes: Sequence[ThumbVote]) -> str:
    down = sum(one.is_down for one in votes)
    return f"{down} of {len(votes)}"
