"""A workload's status as Markdown, HTML, a chart, and text for Prometheus."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from components.monitor import workload_status
from components.monitor.workload_status import Day, WorkloadStatus
from components.pages import charts, templates

COLOURS = (charts.NEW, charts.THERE, charts.OTHER, charts.FURTHER)


def draw_thumbs(days: Sequence[Day], path: Path) -> None:
    """Write a PNG with a column a day for the busiest models, as many as there are colours."""
    figure, axes = charts.sheet(3.4, left=0.1)
    columns = sorted({one.day for one in days})
    shown = [one.model_name for one in workload_status.by_model(days)][: len(COLOURS)]
    for place, (model, colour) in enumerate(zip(shown, COLOURS, strict=False)):
        shift = 0.16 * (place - (len(shown) - 1) / 2)
        for one in (day for day in days if day.model_name == model):
            rate = workload_status.approval(one)
            if rate is None:
                continue
            x = columns.index(one.day) + shift
            axes.plot([x, x], [100 * rate.low, 100 * rate.high], color=colour, lw=2)
            axes.plot(x, 100 * rate.value, "o", color=colour, ms=5)
        axes.plot([], [], "o", color=colour, label=charts.shortened(model, 40))
    axes.set_ylim(-4, 104)
    axes.set_xlim(-0.7, max(1.0, len(columns) - 0.3))
    step = max(1, len(columns) // 10)
    axes.set_xticks(range(0, len(columns), step), [day[5:] for day in columns[::step]])
    axes.set_ylabel("thumbs up, %", color=charts.INK, size=9)
    axes.grid(axis="y", color=charts.GRID, lw=0.8)
    if shown:
        figure.legend(loc="upper center", ncols=2, frameon=False, fontsize=8)
    charts.save(figure, path)


BY_MODEL = {
    "requests": "Requests that were logged in the window.",
    "thumbs_up": "Thumbs up in the window, each person's newest word.",
    "thumbs_down": "Thumbs down in the window, each person's newest word.",
}


def prometheus_text(standings: Iterable[WorkloadStatus]) -> bytes:
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


HEAD = (
    "model",
    "requests",
    "thumbs",
    "up",
    "95 % interval",
    "tokens in, out",
    "p50, p95",
    "a request",
)
MEBIBYTE = 2**20


def as_markdown(found: WorkloadStatus) -> str:
    """Write the page that Prefect keeps."""
    models = [[templates.code(name), *rest] for name, *rest in rows(found)]
    return templates.render(
        "monitor/page.md.j2", standing=found, facts=facts(found), head=HEAD, rows=models
    )


def as_html(found: WorkloadStatus, picture: Path) -> str:
    """Write one file that requests nothing else."""
    return templates.render(
        "monitor/page.html.j2",
        found=found,
        facts=facts(found),
        head=HEAD,
        rows=rows(found),
        picture=picture,
    )


def facts(found: WorkloadStatus) -> list[tuple[str, str]]:
    """Say what is not a table: the champion, the signs, the last start, what waits, the disk."""
    used, free = (f"{size / MEBIBYTE:,.0f} MiB" for size in (found.disk.used, found.disk.free))
    oldest = min((one.since for one in found.waiting), default=None)
    return [
        ("Champion", found.champion),
        ("As it was evaluated", found.answering),
        *(("Reached" if one.is_given else "Watched", one.told) for one in found.findings),
        ("Last start or non-start", found.last_start),
        (
            "Approvals that wait",
            f"{len(found.waiting)}, the oldest since {oldest:%Y-%m-%d %H:%M}" if oldest else "none",
        ),
        ("Disk", f"{used} in the home, {free} free"),
    ]


def rows(found: WorkloadStatus) -> list[list[str]]:
    """Give a row for each model, in words."""
    return [_row(one, found) for one in found.models]


def _row(one: Day, found: WorkloadStatus) -> list[str]:
    rate = workload_status.approval(one)
    price = found.prices.get(one.model_name)
    took = found.latencies.get(one.model_name)
    counted = max(1, one.counted)
    return [
        one.model_name,
        f"{one.requests:,}",
        f"{one.votes:,}",
        f"{rate.value:.1%}" if rate else "none",
        f"{rate.low:.1%} to {rate.high:.1%}" if rate else "",
        f"{one.input_tokens / counted:.0f}, {one.output_tokens / counted:.0f}"
        if one.counted
        else "not logged",
        f"{took.p50_ms:,.0f}, {took.p95_ms:,.0f} ms" if took else "not logged",
        f"{price:.3g} {found.currency}" if price is not None else "no price",
    ]
