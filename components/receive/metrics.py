"""What a receiver counts, as Prometheus reads it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The figures of one receiver, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.records = Counter(
            "flywheel_receive_records",
            "Interactions, feedback, spans and log records that were acknowledged.",
            ["kind", "client_id"],
            registry=self._registry,
        )
        self.answers = Counter(
            "flywheel_receive_answers",
            "Requests by how they were answered.",
            ["path", "status"],
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "flywheel_receive_request_seconds",
            "From the head of an acknowledged request to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._commit_seconds = Histogram(
            "flywheel_receive_commit_seconds",
            "Writing one group of requests to the disk, fsync included.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._committed = Counter(
            "flywheel_receive_committed_bytes",
            "Bytes written to segments.",
            registry=self._registry,
        )

    def observe_commit(self, seconds: float, size: int) -> None:
        """Count one group that is on the disk."""
        self._commit_seconds.observe(seconds)
        self._committed.inc(size)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a figure that is read when somebody asks."""
        gauge = Gauge(f"flywheel_receive_{name}", text, registry=self._registry)
        gauge.set_function(value)

    def page(self) -> bytes:
        """Give the text that a Prometheus server scrapes."""
        return generate_latest(self._registry)
