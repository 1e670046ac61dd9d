"""The gateway's metrics, for Prometheus."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from components.serve.routes import Current

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ServeMetrics:
    """The metrics of one gateway, in their own registry. Labels are bounded: no client's text."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "flywheel_serve_requests",
            "Requests by workload (empty if refused before it was known), the version that "
            "answered (empty if none did) and HTTP status.",
            ["workload", "version", "arm", "status"],
            registry=registry,
        )
        self._answer_seconds = Histogram(
            "flywheel_serve_answer_seconds",
            "From a request's arrival to the end of its answer.",
            ["workload"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_token_seconds = Histogram(
            "flywheel_serve_first_token_seconds",
            "From a request's arrival to the first piece of its answer.",
            ["workload"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "flywheel_serve_tokens",
            "Tokens of prompts and answers.",
            ["workload", "kind"],
            registry=registry,
        )
        self._partial = Counter(
            "flywheel_serve_partial_answers",
            "Answers that were cut off, by reason.",
            ["workload", "finish"],
            registry=registry,
        )
        self._unlogged = Counter(
            "flywheel_serve_unlogged_answers",
            "Answers without a record: the client's wish (store), or best_effort without room.",
            ["workload", "reason"],
            registry=registry,
        )
        self._upstream_errors = Counter(
            "flywheel_serve_upstream_errors",
            "Failures of replicas and fallbacks.",
            ["replica", "status"],
            registry=registry,
        )
        self._feedback = Counter(
            "flywheel_serve_feedback", "Feedback by id.", ["workload"], registry=registry
        )
        # A child's lookup takes a lock and a tuple each time; there are few.
        self.requests = lru_cache(maxsize=4096)(self._requests.labels)
        self.answer_seconds = lru_cache(maxsize=1024)(self._answer_seconds.labels)
        self.first_token_seconds = lru_cache(maxsize=1024)(self._first_token_seconds.labels)
        self.tokens = lru_cache(maxsize=1024)(self._tokens.labels)
        self.partial = self._partial.labels
        self.unlogged = self._unlogged.labels
        self.upstream_errors = self._upstream_errors.labels
        self.feedback = self._feedback.labels

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape."""
        Gauge(f"flywheel_serve_{name}", text, registry=self._registry).set_function(value)

    def watch_serving(self, current: Current, status: Callable[[], Mapping[str, Any]]) -> None:
        """Add the gauges of who serves, which are read at each scrape from routes and status."""
        self._registry.register(ServingCollector(current, status))

    def collect(self, collector: Collector) -> None:
        """Add what a collector shows at each scrape."""
        self._registry.register(collector)

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class ServingCollector(Collector):
    """Who serves, where that is proved, and what is refused."""

    def __init__(self, current: Current, status: Callable[[], Mapping[str, Any]]) -> None:
        self._current, self._status = current, status

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        proved = GaugeMetricFamily(
            "flywheel_serve_proved_replicas",
            "Replicas on which the version that serves is proved.",
            labels=["workload", "version"],
        )
        age = GaugeMetricFamily(
            "flywheel_serve_proof_age_seconds",
            "Since the newest proof of the version that serves.",
            labels=["workload"],
        )
        table = self._current.routes
        for workload in table:
            champion = table[workload].champion
            proved.add_metric([workload, champion.version], len(champion.replicas))
            since = datetime.now(UTC) - datetime.fromisoformat(champion.proved_at)
            age.add_metric([workload], since.total_seconds())
        yield from (proved, age)
        yield from _status_metrics(self._status())


def _status_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    failed = GaugeMetricFamily(
        "flywheel_serve_proof_failed",
        "1 where the newest proof of the version that serves failed.",
        labels=["workload", "replica"],
    )
    for workload, details in status.get("workloads", {}).items():
        proofs = (details["champion"] or {}).get("proofs", {})
        for replica, proof in proofs.items():
            failed.add_metric([workload, replica], float(proof["objection"] is not None))
    refused = GaugeMetricFamily(
        "flywheel_serve_refused_version",
        "1 for a champion that may not serve; the status says why.",
        labels=["workload", "version"],
    )
    for refusal in status.get("refused", ()):
        refused.add_metric([refusal["workload"], refusal["version"]], 1.0)
    usable = GaugeMetricFamily(
        "flywheel_serve_replica_in", "1 while a replica may be asked.", labels=["replica"]
    )
    for replica in status.get("replicas", ()):
        usable.add_metric([replica["name"]], float(replica["condition"] == "in"))
    yield from (failed, refused, usable)
