"""Prometheus metrics of a home: durations and outcomes of stages, waits, what is overdue."""

import functools
import inspect
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from components.store import counters, spool
from components.store.counters import GAVE_UP, WAITED, Count
from flows.settings import Settings
from flows.settings import load as load_settings
from flows.stack import processes

P = ParamSpec("P")
R = TypeVar("R")

BUCKETS = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0)
STARTS, BUCKET, SUM, COUNT = "stage_starts", "stage_seconds_bucket", "stage_seconds", "stage_ends"
LAST = "stage_last_success"

# The outcomes of a stage: an end, an error, a signal or a cancellation, nothing to do.
SUCCESS, FAILED, STOPPED, SKIPPED = "success", "failed", "stopped", "skipped"


def count_stage(
    stage: str, skipped: Callable[[R], bool] = lambda _: False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Count the duration and the outcome of each call of a function, by its ``workload``.

    Args:
        stage: The label.
        skipped: Whether a call's result means that there was nothing to do.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            workload = signature.bind(*args, **kwargs).arguments["workload"].workload
            with _timed_stage(load_settings(), stage, workload) as ending:
                result = function(*args, **kwargs)
                ending.append(SKIPPED if skipped(result) else SUCCESS)
            return result

        return counted

    return decorate


@contextmanager
def _timed_stage(settings: Settings, stage: str, workload: str) -> Generator[list[str]]:
    labels = {"stage": stage, "workload": workload}
    settings.home.mkdir(parents=True, exist_ok=True)
    counters.create(settings.home)
    counters.add(settings.home, [Count(STARTS, 1, labels)])
    began, ending = time.monotonic(), list[str]()
    try:
        yield ending
    except Exception:
        ending.append(FAILED)
        raise
    finally:
        outcome, seconds = ending[0] if ending else STOPPED, time.monotonic() - began
        ended = labels | {"outcome": outcome}
        counts = [Count(SUM, seconds, ended), Count(COUNT, 1, ended)]
        counts += [Count(BUCKET, 1, ended | {"le": str(le)}) for le in BUCKETS if seconds <= le]
        last = [Count(LAST, time.time(), labels)] if outcome == SUCCESS else []
        counters.add(settings.home, counts, last)


class Exporter(Collector):
    """The metrics of a home, read at each request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        counts = counters.read(self._settings.home)
        yield from stage_metrics(counts)
        yield from wait_metrics(counts)
        yield GaugeMetricFamily(
            "flywheel_spool_oldest_seconds",
            "Age of the oldest of what the receiver took and collect has not loaded; 0 if none.",
            value=spool.age(self._settings.spool, time.time()),
        )
        yield from self._services()

    def _services(self) -> Iterable[Metric]:
        working = GaugeMetricFamily(
            "flywheel_service_up", "1 while a service of the stack works.", labels=["service"]
        )
        restarts = CounterMetricFamily(
            "flywheel_service_restarts",
            "How often a service ended or hung, and was started again.",
            labels=["service"],
        )
        stack = processes.read_state(self._settings)
        alive = processes.is_supervised(stack)
        for service in stack.services if stack else ():
            working.add_metric([service.name], float(alive and service.condition == "up"))
            restarts.add_metric([service.name], service.restarts)
        yield working
        yield restarts


def stage_metrics(counts: list[Count]) -> Iterable[Metric]:
    """Yield the starts, durations, outcomes and last successes of stages."""
    starts = CounterMetricFamily(
        "flywheel_stage_starts",
        "Stages that began; those that neither ended nor go on were killed.",
        labels=["stage", "workload"],
    )
    seconds = HistogramMetricFamily(
        "flywheel_stage_seconds",
        "How long stages took, by how they ended: success, failed, stopped, skipped.",
        labels=["stage", "workload", "outcome"],
    )
    last = GaugeMetricFamily(
        "flywheel_stage_last_success_timestamp_seconds",
        "When a stage last ended well, in seconds since 1970.",
        labels=["stage", "workload"],
    )
    for count in counts:
        where = [count.labels.get("stage", ""), count.labels.get("workload", "")]
        if count.name == STARTS:
            starts.add_metric(where, count.value)
        elif count.name == LAST:
            last.add_metric(where, count.value)
        elif count.name == COUNT:
            buckets = [
                (str(le), _value(counts, BUCKET, {**count.labels, "le": str(le)})) for le in BUCKETS
            ]
            total = _value(counts, SUM, count.labels)
            where.append(count.labels["outcome"])
            seconds.add_metric(where, [*buckets, ("+Inf", count.value)], total)
    yield from (starts, seconds, last)


def wait_metrics(counts: list[Count]) -> Iterable[Metric]:
    """Yield how long processes waited for the warehouse, and how often they gave up."""
    by_name = {count.name: count.value for count in counts if not count.labels}
    yield CounterMetricFamily(
        "flywheel_warehouse_wait_seconds",
        "Time that processes have waited for the warehouse's lock; its rate is how many wait.",
        value=by_name.get(WAITED, 0.0),
    )
    yield CounterMetricFamily(
        "flywheel_warehouse_gave_up",
        "Processes that ended because the warehouse stayed busy for longer than they wait.",
        value=by_name.get(GAVE_UP, 0.0),
    )


def _value(counts: list[Count], name: str, labels: Mapping[str, str]) -> float:
    return next((c.value for c in counts if c.name == name and c.labels == labels), 0.0)


def metrics_registry(settings: Settings) -> CollectorRegistry:
    """Return the registry that a Prometheus server scrapes."""
    registry = CollectorRegistry()
    registry.register(Exporter(settings))
    return registry


def metrics_page(settings: Settings) -> bytes:
    """Return the text for a Prometheus server, or node exporter's textfile collector."""
    return generate_latest(metrics_registry(settings))
