"""Give standings as the text that Prometheus scrapes."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from components.monitor.standing import Standing

BY_MODEL = {
    "requests": "Requests that were logged in the window.",
    "thumbs_up": "Thumbs up in the window, each person's newest word.",
    "thumbs_down": "Thumbs down in the window, each person's newest word.",
}


def text(standings: Iterable[Standing]) -> bytes:
    """Write all workloads' figures in Prometheus' text format."""
    registry = CollectorRegistry()
    by_model = {
        name: Gauge(f"flywheel_live_{name}", told, ["workload", "model"], registry=registry)
        for name, told in BY_MODEL.items()
    }
    latency = Gauge(
        "flywheel_live_latency_seconds",
        "How long answers in the window took, where the logs say so.",
        ["workload", "model", "quantile"],
        registry=registry,
    )
    sign = Gauge(
        "flywheel_sign_ratio",
        "A sign's figure over its bound; 1 and more asks for a turn.",
        ["workload", "kind"],
        registry=registry,
    )
    waiting = Gauge(
        "flywheel_approvals_waiting", "Approvals that wait.", ["workload"], registry=registry
    )
    free = Gauge("flywheel_disk_free_bytes", "Left on the home's disk.", registry=registry)
    used = Gauge("flywheel_home_bytes", "What the home takes.", registry=registry)
    for one in standings:
        for day in one.models:
            counts = (day.requests, day.up, day.down)
            for gauge, count in zip(by_model.values(), counts, strict=True):
                gauge.labels(one.workload, day.model_name).set(count)
        for took in one.latencies.values():
            for quantile, milliseconds in (("0.5", took.p50_ms), ("0.95", took.p95_ms)):
                seconds = milliseconds / 1000
                latency.labels(one.workload, took.model_name, quantile).set(seconds)
        for finding in one.findings:
            sign.labels(one.workload, finding.kind).set(finding.figure / finding.bound)
        waiting.labels(one.workload).set(len(one.waiting))
        free.set(one.disk.free)
        used.set(one.disk.used)
    return generate_latest(registry)
