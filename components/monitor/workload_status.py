"""A workload's status: answers, approval, latency and price by model and day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from components import costs
from components.costs import Prices, Speed, Usage
from components.monitor.serving_status import ServingStatus
from components.monitor.signs import Sign
from components.monitor.turn_starts import TurnStart
from components.store import warehouse
from components.store.warehouse import Connection

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Day:
    """One model's day: requests, summed tokens of the ``counted`` ones that log them, feedback."""

    model_name: str
    day: str
    requests: int
    counted: int
    input_tokens: float
    output_tokens: float
    up: int
    down: int
    corrected: int = 0
    """The requests whose answer somebody corrected."""
    served: int = 0
    """The requests that the gateway answered."""
    fallbacks: int = 0
    """Those that the gateway answered instead of somebody else, who failed."""
    disputed: int = 0
    """The requests on whose answer people disagree: thumbs up and down."""
    version: str | None = None
    """The model's version at the gateway; ``None`` if it is none of ours."""
    cached_tokens: float = 0.0
    """Of the input tokens, those that the provider had cached."""
    written_tokens: float = 0.0
    """Of the input tokens, those that the provider wrote to its cache."""

    @property
    def votes(self) -> int:
        """The number of votes."""
        return self.up + self.down


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def days(con: Connection, workload_id: str, since: datetime) -> list[Day]:
    """Return a workload's days since a time, by model."""
    return warehouse.records(con, "marts/live_days", Day, workload_id=workload_id, since=since)


@dataclass(frozen=True, slots=True)
class Latency:
    """The median and 95th percentile of a model's latency in ms, over ``timed`` requests."""

    model_name: str
    timed: int
    p50_ms: float
    p95_ms: float


def latencies(con: Connection, workload_id: str, since: datetime) -> dict[str, Latency]:
    """Return the latencies since a time by model, of requests that log a duration."""
    rows = warehouse.read(con, "marts/live_latency", Latency, workload_id=workload_id, since=since)
    return {row.model_name: row for row in rows}


def by_model(model_days: Sequence[Day]) -> list[Day]:
    """Return each model's sums, with ``day`` the last one; the busiest model first."""
    in_order = sorted(model_days, key=lambda day: (day.model_name, day.day))
    groups = groupby(in_order, lambda day: day.model_name)
    return sorted((_sum([*group]) for _, group in groups), key=lambda day: -day.requests)


def _sum(group: Sequence[Day]) -> Day:
    return Day(
        group[0].model_name,
        group[-1].day,
        sum(day.requests for day in group),
        sum(day.counted for day in group),
        sum(day.input_tokens for day in group),
        sum(day.output_tokens for day in group),
        sum(day.up for day in group),
        sum(day.down for day in group),
        sum(day.corrected for day in group),
        sum(day.served for day in group),
        sum(day.fallbacks for day in group),
        sum(day.disputed for day in group),
        group[-1].version,
        sum(day.cached_tokens for day in group),
        sum(day.written_tokens for day in group),
    )


def rate(count: int, total: int) -> Rate | None:
    """Return a share with Wilson's interval (1927); ``None`` without observations."""
    from scipy import stats  # noqa: PLC0415 - slow to import

    if not total:
        return None
    interval = stats.binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return Rate(count / total, float(interval.low), float(interval.high))


def price(day: Day, prices: Prices, speed: Speed | None = None) -> float | None:
    """Return a mean request's price; ``None`` without logged tokens or what prices them.

    A version's tokens cost its host's price, or the hours that ``speed``, measured in its
    evaluation, needs for as many; those of any other model cost production's price.
    """
    if not day.counted:
        return None
    tokens = (day.input_tokens / day.counted, day.output_tokens / day.counted)
    token_price = prices.production if day.version is None else prices.challenger
    if token_price is not None:
        cached = day.cached_tokens / day.counted, day.written_tokens / day.counted
        return costs.by_tokens(Usage(*tokens, day.counted, "logged", *cached), token_price)
    if day.version is None or speed is None:
        return None
    evaluated = costs.answering(prices, speed).value
    usage = speed.usage
    return None if evaluated is None else evaluated * sum(tokens) / (usage.input + usage.output)


def price_text(amount: float | None, currency: str) -> str:
    """Return a request's price as the pages show it."""
    return "no price" if amount is None else costs.money(amount, currency)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pending approval; ``link`` opens it."""

    name: str
    link: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Disk:
    """The home's size and the free space on its disk, in bytes."""

    used: int
    free: int


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """One workload's status over the last ``span_days``."""

    workload: str
    at: datetime
    span_days: int
    champion: str
    serving: ServingStatus
    answering: str
    days: Sequence[Day]
    prices: dict[str, float]  # of a mean request, by model if known
    latencies: dict[str, Latency]  # of models whose logs have durations
    currency: str
    findings: Sequence[Sign]
    starts: Sequence[TurnStart]
    """The newest turns, and looks that started none, the newest first."""
    waiting: Sequence[Waiting]
    disk: Disk

    @property
    def models(self) -> list[Day]:
        """The sums of each model, the busiest first."""
        return by_model(self.days)
