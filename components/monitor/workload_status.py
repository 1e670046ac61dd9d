"""A workload's status: answers, approval, latency and price by model and day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from components import costs
from components.costs import Prices, Usage
from components.store import warehouse
from components.store.warehouse import Connection

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


@dataclass(frozen=True, slots=True)
class TriggerFinding:
    """What a test of the trigger found: its figure beside its bound, and in words."""

    kind: str
    figure: float
    bound: float
    told: str

    @property
    def is_given(self) -> bool:
        """Whether the bound is reached."""
        return self.figure >= self.bound


@dataclass(frozen=True, slots=True)
class Waiting:
    """An approval that waits for a person; ``link`` opens it."""

    name: str
    link: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that the home takes, and bytes that its disk has left."""

    used: int
    free: int


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """One workload at one time; ``days`` reach back as long as was asked for.

    ``prices`` holds what a mean request costs, by model, where it can be reckoned, ``latencies``
    how long answers took, where the logs say so.
    """

    workload: str
    at: datetime
    span_days: int
    champion: str
    answering: str
    days: Sequence[Day]
    prices: dict[str, float]
    latencies: dict[str, Latency]
    currency: str
    findings: Sequence[TriggerFinding]
    last_start: str
    waiting: Sequence[Waiting]
    disk: Disk

    @property
    def models(self) -> list[Day]:
        """The sums of each model, the busiest first."""
        return by_model(self.days)
