"""A workload's page: who serves it, its traffic, signs and canary; and figures for Prometheus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from components.monitor import canary_status, serving_status, workload_status
from components.monitor.canary_status import CanaryStatus
from components.monitor.serving_status import ServingVersion, minute
from components.monitor.turn_starts import TurnStart
from components.monitor.workload_status import Day, Rate, WorkloadStatus
from components.pages import templates

MEBIBYTE = 2**20

TRAFFIC_HEAD = (
    *("version", "requests", "share", "fallbacks", "up, down", "disputed", "down (95 %)"),
    *("corrected (95 %)", "tokens in, out", "p50, p95", "price a request"),
)
TRAFFIC_NOTE = (
    "Answers that client or engine cut off don't count. Thumbs are each person's newest on an "
    "answer; down is their share of the thumbs, corrected the share of the answers that somebody "
    "corrected, with Wilson's 95 % intervals."
)
CANARY_NOTE = (
    "Conversations with a bad event of each kind. Worse is the evidence that the canary's risk is "
    "above the champion's, within margin that it is below {:g} times it; each with the number at "
    "which it decides. It holds at every look."
)
START_HEAD = ("when (UTC)", "outcome", "by", "why")

BY_MODEL = {
    "requests": "Requests logged in the window.",
    "thumbs_up": "Thumbs up in the window, each person's newest vote on an answer.",
    "thumbs_down": "Thumbs down in the window, each person's newest vote on an answer.",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: facts with their labels, a table, and a remark about it."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""


def as_markdown(status: WorkloadStatus) -> str:
    """Return the Markdown page of Prefect's artifact."""
    title = f"{status.workload}, last {status.span_days} days"
    return _markdown(title, sections(status), status)


def canary_markdown(canary: CanaryStatus) -> str:
    """Return the Markdown of a canary alone, for its own artifact."""
    return _markdown(f"Version {canary.version}", [_canary_section(canary)])


def _markdown(title: str, shown: Sequence[Section], status: WorkloadStatus | None = None) -> str:
    waiting = status.waiting if status else ()
    return templates.render(
        "components/monitor/page.md.j2", title=title, sections=shown, waiting=waiting
    )


def sections(status: WorkloadStatus) -> list[Section]:
    """Return what the page shows, but for approvals that wait."""
    canary = status.serving.canary
    votes = "" if any(day.votes for day in status.days) else " Nobody has voted on an answer."
    nothing = "No requests logged; those of the gateway count once `flywheel collect` loads them."
    return [
        Section("Now", facts=[*_who_serves(status), *_what_to_know(status)]),
        *([] if canary is None else [_canary_section(canary)]),
        Section(
            "Traffic by version",
            head=TRAFFIC_HEAD,
            rows=traffic_rows(status),
            note=(TRAFFIC_NOTE + votes) if status.days else nothing,
        ),
        Section("Turns", head=START_HEAD, rows=[_start_row(start) for start in status.starts]),
    ]


def _canary_section(canary: CanaryStatus) -> Section:
    word = "Ended as" if canary.is_over else "Stands"
    plan = ", then ".join(
        f"{share:.3g} for {seconds / 3600:.3g} h" for share, seconds in canary.steps
    )
    rows = canary_status.evidence_rows(canary)
    return Section(
        "Canary",
        facts=[
            ("Versions", f"{canary.version} beside {canary.champion} (canary {canary.id})"),
            (word, f"{canary.state}: {canary.reason}"),
            ("Started", minute(canary.started_at)),
            ("Shares", f"{plan}; undecided after {canary.deadline_seconds / 3600:.3g} h"),
            ("Ends", canary.requirement),
        ],
        head=canary_status.EVIDENCE_HEAD,
        rows=rows,
        note=CANARY_NOTE.format(canary.margin) if rows else "No evidence yet.",
    )


def _who_serves(status: WorkloadStatus) -> list[tuple[str, str]]:
    serving, champion = status.serving, status.serving.champion
    if not serving.is_running:
        return [("Serves", serving_status.sentence(serving))]
    if champion is None:
        who = [("Serves", "nobody: no version was promoted, or none may serve")]
    else:
        where = ", ".join(champion.replicas) or "no replica"
        who = [
            ("Serves", f"version {champion.version} ({champion.model})"),
            ("Since", minute(champion.since)),
            ("On", f"{where} ({serving.engine}, {champion.precision})"),
            ("Proved", _proved(champion)),
            ("Before it", _before(serving.previous)),
        ]
    return [
        *who,
        *(("Elsewhere", text) for text in serving_status.elsewhere(serving)),
        *((f"Preparing {number}", step) for number, step in serving.preparing),
        *(
            ("Refused", f"version {refusal.version} since {minute(refusal.at)}: {refusal.reason}")
            for refusal in serving.refused
        ),
        *((f"Out: {name}", reason) for name, reason in serving.replicas_out),
    ]


def _proved(served: ServingVersion) -> str:
    if not served.replicas:
        return f"on no replica; last at {minute(served.proved_at)}"
    if not served.has_effect:
        return f"{minute(served.proved_at)}: equal to its reference, and to its base"
    return f"{minute(served.proved_at)}, by its log-probabilities and a greedy answer"


def _before(previous: ServingVersion | None) -> str:
    if previous is None:
        return "none: a rollback has to load its version first"
    return f"version {previous.version}, still loaded, so that a rollback is a proof and a flip"


def _what_to_know(status: WorkloadStatus) -> list[tuple[str, str]]:
    used, free = (f"{size / MEBIBYTE:,.0f} MiB" for size in (status.disk.used, status.disk.free))
    signs = [("Reached" if sign.is_reached else "Watched", sign.text) for sign in status.findings]
    pending = "none"
    if status.waiting:
        oldest = min(approval.since for approval in status.waiting)
        pending = f"{len(status.waiting)}, the oldest since {oldest:%Y-%m-%d %H:%M}"
    return [
        ("Champion", status.champion),
        ("As it was evaluated", status.answering),
        *signs,
        ("Pending approvals", pending),
        ("Disk", f"{used} in the home, {free} free"),
    ]


def _start_row(start: TurnStart) -> list[str]:
    outcome = "turn" if start.started else "no turn"
    return [f"{start.looked_at:%Y-%m-%d %H:%M}", outcome, start.cause, start.reason]


def traffic_rows(status: WorkloadStatus) -> list[list[str]]:
    """Return a formatted row for each version: the newest first, then other models."""
    total = sum(sums.requests for sums in status.models)
    return [_traffic_row(sums, total, status) for sums in in_order(status)]


def in_order(status: WorkloadStatus) -> list[Day]:
    """Return each model's sums: versions from the newest on, then others, the busiest first."""

    def key(sums: Day) -> tuple[bool, int, int]:
        number = _number(status.workload, sums.model_name)
        return number is None, -(number or 0), -sums.requests

    return sorted(status.models, key=key)


def _number(workload: str, model_name: str) -> int | None:
    """Return the version that a response's model names; ``None`` if it is no version."""
    name, _, number = model_name.rpartition("@")
    is_version = name == workload and number.isascii() and number.isdigit()
    return int(number) if is_version else None


def label(workload: str, sums: Day) -> str:
    """Name a row of the traffic: a version, another server, or what others logged."""
    number = _number(workload, sums.model_name)
    if number is not None:
        return f"version {number}"
    place = "a fallback" if sums.served else "not by the gateway"
    return f"{sums.model_name} ({place})"


def _traffic_row(sums: Day, total: int, status: WorkloadStatus) -> list[str]:
    latency = status.latencies.get(sums.model_name)
    price = status.prices.get(sums.model_name)
    down = workload_status.rate(sums.down, sums.votes)
    corrected = workload_status.rate(sums.corrected, sums.requests)
    return [
        label(status.workload, sums),
        f"{sums.requests:,}",
        templates.share(sums.requests, total),
        f"{sums.fallbacks:,}" if sums.served else "",
        f"{sums.up:,}, {sums.down:,}" if sums.votes else "no votes",
        f"{sums.disputed:,}" if sums.votes else "",
        _with_interval(down),
        _with_interval(corrected),
        f"{sums.input_tokens / sums.counted:.0f}, {sums.output_tokens / sums.counted:.0f}"
        if sums.counted
        else "not logged",
        f"{latency.p50_ms:,.0f}, {latency.p95_ms:,.0f} ms" if latency else "not logged",
        workload_status.price_text(price, status.currency),
    ]


def _with_interval(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{rate.value:.1%} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


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
