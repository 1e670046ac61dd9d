"""A workload's status as Markdown, HTML, a chart, and text for Prometheus."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from components.monitor import serving_status, workload_status
from components.monitor.workload_status import Day, WorkloadStatus
from components.pages import charts, templates

COLOURS = (charts.NEW, charts.THERE, charts.OTHER, charts.FURTHER)
MEBIBYTE = 2**20

HEAD = (
    "model",
    "requests",
    "thumbs",
    "up",
    "95 % interval",
    "tokens in, out",
    "p50, p95",
    "price a request",
)
BY_MODEL = {
    "requests": "Requests logged in the window.",
    "thumbs_up": "Thumbs up in the window, each person's newest vote on an answer.",
    "thumbs_down": "Thumbs down in the window, each person's newest vote on an answer.",
}


def draw_thumbs(days: Sequence[Day], path: Path) -> None:
    """Write a PNG of the thumbs-up share by day of the busiest models, one for each colour."""
    figure, axes = charts.sheet(3.4, left=0.1)
    columns = sorted({day.day for day in days})
    shown = [sums.model_name for sums in workload_status.by_model(days)][: len(COLOURS)]
    for place, (model, colour) in enumerate(zip(shown, COLOURS, strict=False)):
        shift = 0.16 * (place - (len(shown) - 1) / 2)
        for day in (day for day in days if day.model_name == model):
            rate = workload_status.approval(day)
            if rate is None:
                continue
            x = columns.index(day.day) + shift
            axes.plot([x, x], [100 * rate.low, 100 * rate.high], color=colour, lw=2)
            axes.plot(x, 100 * rate.value, "o", color=colour, ms=5)
        axes.plot([], [], "o", color=colour, label=charts.shortened(model, 40))
    axes.set_ylim(-4, 104)
    axes.set_xlim(-0.7, max(1.0, len(columns) - 0.3))
    step = max(1, len(columns) // 10)
    axes.set_xticks(range(0, len(columns), step), [date[5:] for date in columns[::step]])
    axes.set_ylabel("thumbs up, %", color=charts.INK, size=9)
    axes.grid(axis="y", color=charts.GRID, lw=0.8)
    if shown:
        figure.legend(loc="upper center", ncols=2, frameon=False, fontsize=8)
    charts.save(figure, path)


def prometheus_text(statuses: Iterable[WorkloadStatus]) -> bytes:
    """Return all workloads' figures in Prometheus' text format."""
    registry = CollectorRegistry()
    by_model = {
        name: Gauge(f"flywheel_live_{name}", help_text, ["workload", "model"], registry=registry)
        for name, help_text in BY_MODEL.items()
    }
    latency = Gauge(
        "flywheel_live_latency_seconds",
        "Latency of answers in the window that log a duration.",
        ["workload", "model", "quantile"],
        registry=registry,
    )
    price = Gauge(
        "flywheel_live_request_price",
        "The price of a mean request in the window.",
        ["workload", "model", "currency"],
        registry=registry,
    )
    sign = Gauge(
        "flywheel_sign_ratio",
        "A sign's figure over its bound; from 1 it is a reason for a turn.",
        ["workload", "kind"],
        registry=registry,
    )
    waiting = Gauge(
        "flywheel_approvals_waiting", "Pending approvals.", ["workload"], registry=registry
    )
    free = Gauge("flywheel_disk_free_bytes", "Free bytes on the home's disk.", registry=registry)
    used = Gauge("flywheel_home_bytes", "The home's size in bytes.", registry=registry)
    for status in statuses:
        for day in status.models:
            counts = (day.requests, day.up, day.down)
            for gauge, count in zip(by_model.values(), counts, strict=True):
                gauge.labels(status.workload, day.model_name).set(count)
        for took in status.latencies.values():
            for quantile, milliseconds in (("0.5", took.p50_ms), ("0.95", took.p95_ms)):
                seconds = milliseconds / 1000
                latency.labels(status.workload, took.model_name, quantile).set(seconds)
        for model, amount in status.prices.items():
            price.labels(status.workload, model, status.currency).set(amount)
        for finding in status.findings:
            sign.labels(status.workload, finding.kind).set(finding.figure / finding.bound)
        waiting.labels(status.workload).set(len(status.waiting))
        free.set(status.disk.free)
        used.set(status.disk.used)
    return generate_latest(registry)


def as_markdown(status: WorkloadStatus) -> str:
    """Return the Markdown page of Prefect's artifact."""
    models = [[templates.code(name), *rest] for name, *rest in rows(status)]
    return templates.render(
        "monitor/page.md.j2", status=status, facts=facts(status), head=HEAD, rows=models
    )


def as_html(status: WorkloadStatus, picture: Path) -> str:
    """Return a self-contained HTML page."""
    values = {"facts": facts(status), "head": HEAD, "rows": rows(status), "picture": picture}
    has_votes = any(day.votes for day in status.days)
    return templates.render("monitor/page.html.j2", status=status, has_votes=has_votes, **values)


def facts(status: WorkloadStatus) -> list[tuple[str, str]]:
    """Return the labelled facts: champion, signs, last start, pending approvals, disk."""
    used, free = (f"{size / MEBIBYTE:,.0f} MiB" for size in (status.disk.used, status.disk.free))
    signs = [("Reached" if sign.is_reached else "Watched", sign.text) for sign in status.findings]
    pending = "none"
    if status.waiting:
        oldest = min(approval.since for approval in status.waiting)
        pending = f"{len(status.waiting)}, the oldest since {oldest:%Y-%m-%d %H:%M}"
    return [
        ("Champion", status.champion),
        ("Served", serving_status.sentence(status.serving)),
        ("As it was evaluated", status.answering),
        *signs,
        ("Last turn, or look for one", status.last_start),
        ("Pending approvals", pending),
        ("Disk", f"{used} in the home, {free} free"),
    ]


def rows(status: WorkloadStatus) -> list[list[str]]:
    """Return a formatted row for each model."""
    return [_row(sums, status) for sums in status.models]


def _row(sums: Day, status: WorkloadStatus) -> list[str]:
    rate = workload_status.approval(sums)
    price = status.prices.get(sums.model_name)
    latency = status.latencies.get(sums.model_name)
    counted = max(1, sums.counted)
    return [
        sums.model_name,
        f"{sums.requests:,}",
        f"{sums.votes:,}",
        f"{rate.value:.1%}" if rate else "none",
        f"{rate.low:.1%} to {rate.high:.1%}" if rate else "",
        f"{sums.input_tokens / counted:.0f}, {sums.output_tokens / counted:.0f}"
        if sums.counted
        else "not logged",
        f"{latency.p50_ms:,.0f}, {latency.p95_ms:,.0f} ms" if latency else "not logged",
        workload_status.price_text(price, status.currency),
    ]
