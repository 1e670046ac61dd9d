"""The record of how a workload stands: what the page, the artifact and Prometheus are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from components.monitor import live
from components.monitor.live import Day, Latency


@dataclass(frozen=True, slots=True)
class Finding:
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
class Standing:
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
    findings: Sequence[Finding]
    last_start: str
    waiting: Sequence[Waiting]
    disk: Disk

    @property
    def models(self) -> list[Day]:
        """The sums of each model, the busiest first."""
        return live.by_model(self.days)
