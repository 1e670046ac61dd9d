"""Count what each model answered and how it was liked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from components import costs, warehouse
from components.costs import Prices, Usage
from components.warehouse import Connection

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Day:
    """One model's day: ``counted`` requests say their tokens, which are summed; thumbs up, down."""

    model_name: str
    day: str
    requests: int
    counted: int
    input_tokens: float
    output_tokens: float
    up: int
    down: int

    @property
    def votes(self) -> int:
        """How many thumbs there are."""
        return self.up + self.down


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its interval."""

    value: float
    low: float
    high: float


def days(con: Connection, workload_id: str, since: datetime) -> list[Day]:
    """Read a workload's days from a time on, by model."""
    return [*warehouse.read(con, "marts/live_days", Day, workload_id=workload_id, since=since)]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a model's answers took, in milliseconds: median and 95th percentile of ``timed``."""

    model_name: str
    timed: int
    p50_ms: float
    p95_ms: float


def latencies(con: Connection, workload_id: str, since: datetime) -> dict[str, Latency]:
    """Read how long the answers since a time took, by model; of those that say so."""
    found = warehouse.read(con, "marts/live_latency", Latency, workload_id=workload_id, since=since)
    return {one.model_name: one for one in found}


def by_model(found: Sequence[Day]) -> list[Day]:
    """Sum each model's days; ``day`` is the last one. The busiest model comes first."""
    groups = groupby(
        sorted(found, key=lambda one: (one.model_name, one.day)), lambda one: one.model_name
    )
    return sorted((_sum([*group]) for _, group in groups), key=lambda one: -one.requests)


def _sum(group: Sequence[Day]) -> Day:
    return Day(
        group[0].model_name,
        group[-1].day,
        sum(one.requests for one in group),
        sum(one.counted for one in group),
        sum(one.input_tokens for one in group),
        sum(one.output_tokens for one in group),
        sum(one.up for one in group),
        sum(one.down for one in group),
    )


def approval(one: Day) -> Rate | None:
    """Give the share of thumbs up with Wilson's interval (1927); ``None`` without a thumb."""
    from scipy import stats  # noqa: PLC0415 - slow to import

    if not one.votes:
        return None
    interval = stats.binomtest(one.up, one.votes).proportion_ci(LEVEL, method="wilson")
    return Rate(one.up / one.votes, float(interval.low), float(interval.high))


def price(one: Day, prices: Prices) -> float | None:
    """Price a mean request by production's prices; ``None`` without them, or without tokens."""
    if prices.production is None or not one.counted:
        return None
    each = Usage(
        one.input_tokens / one.counted, one.output_tokens / one.counted, one.counted, "logged"
    )
    return costs.by_tokens(each, prices.production)
