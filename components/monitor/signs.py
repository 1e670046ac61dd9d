"""Signs that a turn is worth its price: new feedback, input drift, falling votes.

Drift and votes are tested by a conformal test martingale (Vovk, Gammerman and Shafer 2005,
*Algorithmic Learning in a Random World*, ch. 7), the Simple Jumper of Vovk et al. 2021 ("Retrain or
not retrain: conformal test martingales for change-point detection", COPA, algorithm 1). Its capital
bets against "nothing has changed"; if that is true, the chance that it ever reaches 1 / alpha is at
most alpha (Ville 1939), however often it is checked.
"""

import bisect
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, TypeVar

from components.monitor.settings import Trigger
from components.schema import ANONYMOUS
from components.store import warehouse
from components.store.warehouse import Connection, Value

Kind: TypeAlias = Literal["feedback", "inputs", "votes"]

JUMP = 0.01  # the share of capital that changes its bet at each step, as in the paper's experiments

Direction: TypeAlias = Literal["up", "either"]
BETS: dict[Direction, tuple[float, ...]] = {"up": (-1.0, 0.0), "either": (-1.0, 0.0, 1.0)}
"""Slopes e of the bets 1 + e (p - 1/2): a negative one wins on small p-values."""

MAX_REQUESTS = 2000  # the most earlier requests to compare with, the newest ones
MAX_NEW_REQUESTS = 5000
"""The new requests that are all compared; of later ones ever fewer are."""
FEWEST_REQUESTS = 40  # with fewer earlier requests there is no test
MAX_VOTES = 500  # the most earlier votes to compare with, the newest ones
FEWEST_VOTES = 20  # with fewer earlier votes there is no test
VOTES_IN_TIME = 0.9
"""The share of the votes on the predecessor's answers that had come after as long as votes are
waited for: more waits longer, for a few votes."""

WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Sign:
    """One figure, the bound that it has to reach, and its description."""

    kind: Kind
    figure: float
    bound: float
    text: str

    @property
    def is_reached(self) -> bool:
        """Whether it is a reason for a turn."""
        return self.figure >= self.bound


def rank_p_values(
    before: Iterable[float], scores: Sequence[float], ties: Sequence[float]
) -> list[float]:
    """Return each score's rank among itself and all earlier ones; uniform while nothing changes.

    The rank is (number higher + tie * number equal, itself included) / number of all.

    Args:
        before: The reference scores.
        scores: The series, in order of time. A high score is an unusual observation.
        ties: A tie breaker in [0, 1) for each score, independent of the scores.
    """
    seen = sorted(before)
    p_values: list[float] = []
    for score, tie in zip(scores, ties, strict=True):
        bisect.insort(seen, score)
        low, high = bisect.bisect_left(seen, score), bisect.bisect_right(seen, score)
        p_values.append((len(seen) - high + tie * (high - low)) / len(seen))
    return p_values


def martingale_capital(p_values: Iterable[float], direction: Direction) -> list[float]:
    """Bet one unit against uniform p-values, in [0, 1], and return the capital after each.

    The direction ``up`` wins if scores rise, ``either`` if they rise or fall.
    """
    bets = BETS[direction]
    capital = [1 / len(bets)] * len(bets)
    grown: list[float] = []
    for p in p_values:
        share = JUMP * sum(capital) / len(bets)
        capital = [
            ((1 - JUMP) * amount + share) * (1 + slope * (p - 0.5))
            for amount, slope in zip(capital, bets, strict=True)
        ]
        grown.append(sum(capital))
    return grown


def tie_breaker(name: str) -> float:
    """Return a number in [0, 1) derived from an observation's id, the same in every look."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def feedback_sign(
    con: Connection, workload_id: str, since: datetime, settings: Trigger
) -> Sign | None:
    """Compare the feedback signals loaded after ``since`` with ``min_feedback``."""
    if settings.min_feedback is None:
        return None
    rows = warehouse.select(con, "marts/new_feedback", workload_id=workload_id, since=since)
    count = int(str(rows[0]["signals"]))
    text = f"{count} new feedback signals (a turn starts at {settings.min_feedback})"
    return Sign("feedback", count, settings.min_feedback, text)


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request of a conversation."""

    interaction_id: str
    client_id: str
    question: str
    tool_names: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class ThumbVote:
    """The vote of most people on an answer."""

    answer_id: str
    is_down: bool
    is_new: bool


Dated = TypeVar("Dated", FirstRequest, ThumbVote)


def input_sign(
    con: Connection, workload_id: str, since: datetime, settings: Trigger
) -> Sign | None:
    """Test the requests after ``since`` for drift from those before; ``None`` if too few before."""
    values: dict[str, Value] = {
        "workload_id": workload_id,
        "since": since,
        "most": MAX_REQUESTS,
        "most_new": MAX_NEW_REQUESTS,
        "anonymous": [*sorted(ANONYMOUS)],
    }
    before, new = _by_time(warehouse.read(con, "marts/first_requests", FirstRequest, **values))
    return input_drift(before, new, settings)


def input_drift(
    before: Sequence[FirstRequest], new: Sequence[FirstRequest], settings: Trigger
) -> Sign | None:
    """Bet on drift, request by request, ``new`` in order of time.

    Half of the earlier requests define what is usual, the new ones are ranked among the other half
    (an inductive conformal predictor). Each trait has its own capital, and their mean, which is a
    martingale too, is tested: the figure is its highest value so far, the bound 1 / alpha.
    """
    usual, ranked = before[::2], before[1::2]
    if len(ranked) < FEWEST_REQUESTS // 2:
        return None
    ties = [tie_breaker(request.interaction_id) for request in new]
    grown = {
        trait: martingale_capital(
            rank_p_values(map(score, ranked), [score(request) for request in new], ties), "either"
        )
        for trait, score in scores(usual).items()
    }
    mean = [math.fsum(step) / len(grown) for step in zip(*grown.values(), strict=True)]
    highest = max(mean, default=1.0)
    most = max(grown, key=lambda trait: max(grown[trait], default=0))
    text = (
        f"drift of {len(new)} new requests against {len(before)} earlier ones, most by "
        f"their {most}: {_evidence(highest, settings)}"
    )
    return Sign("inputs", highest, 1 / settings.alpha, text)


def _evidence(capital: float, settings: Trigger) -> str:
    return f"evidence {capital:.3g} (a turn starts at {1 / settings.alpha:.3g})"


def _by_time(rows: Iterable[Dated]) -> tuple[list[Dated], list[Dated]]:
    listed = list(rows)
    return [row for row in listed if not row.is_new], [row for row in listed if row.is_new]


def scores(usual: Sequence[FirstRequest]) -> dict[str, Callable[[FirstRequest], float]]:
    """Return a score of unusualness for each trait: surprise in bits, or length."""
    words = _surprise(word for r in usual for word in WORD.findall(r.question.lower()))
    tools = _surprise(request.tool_names for request in usual)
    clients = _surprise(request.client_id for request in usual)

    def rarity(request: FirstRequest) -> float:
        spoken = WORD.findall(request.question.lower())
        return math.fsum(map(words, spoken)) / max(1, len(spoken))

    return {
        "words": rarity,
        "length": lambda request: float(len(request.question)),
        "tools": lambda request: tools(request.tool_names),
        "client": lambda request: clients(request.client_id),
    }


def _surprise(names: Iterable[str]) -> Callable[[str], float]:
    counts = Counter(names)
    total = counts.total() + len(counts) + 1  # add-one smoothing that includes unseen names
    return lambda name: -math.log2((counts[name] + 1) / total)


def vote_sign(
    con: Connection,
    workload_id: str,
    version: str,
    since: datetime,
    settings: Trigger,
    *,
    now: datetime,
) -> Sign | None:
    """Test the votes on the champion's answers against those on its predecessor's, if enough.

    Where people say sooner that an answer is bad than that it is good, the newest answers have more
    bad votes than they will. So an answer counts once it is so old that most votes on the
    predecessor's had come, with the votes that came until then, and so do the predecessor's.

    Args:
        con: The warehouse.
        workload_id: The workload.
        version: The champion's number, which the gateway's answers name.
        since: Its promotion, which divides the answers that name no version.
        settings: The trigger's.
        now: When it is looked at.
    """
    values: dict[str, Value] = {
        "workload_id": workload_id,
        "version": version,
        "now": now,
        "in_time": VOTES_IN_TIME,
        "fewest": FEWEST_VOTES,
        "since": since,
        "most": MAX_VOTES,
        "anonymous": [*sorted(ANONYMOUS)],
    }
    before, new = _by_time(warehouse.read(con, "marts/votes_in_order", ThumbVote, **values))
    return falling_votes(before, new, settings)


def falling_votes(
    before: Sequence[ThumbVote], new: Sequence[ThumbVote], settings: Trigger
) -> Sign | None:
    """Bet on more thumbs down, vote by vote: the highest capital so far, the bound 1 / alpha."""
    if len(before) < FEWEST_VOTES:
        return None
    ranks = rank_p_values(
        [float(vote.is_down) for vote in before],
        [float(vote.is_down) for vote in new],
        [tie_breaker(vote.answer_id) for vote in new],
    )
    highest = max(martingale_capital(ranks, "up"), default=1.0)
    text = (
        f"thumbs down {_share(before)} before the champion, {_share(new)} on its answers: "
        f"{_evidence(highest, settings)}"
    )
    return Sign("votes", highest, 1 / settings.alpha, text)


def _share(votes: Sequence[ThumbVote]) -> str:
    down = sum(vote.is_down for vote in votes)
    return f"{down} of {len(votes)}"
