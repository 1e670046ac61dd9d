"""Who serves a workload, and its traffic by version, as Markdown, HTML and two charts."""

from datetime import date, timedelta
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from components.monitor import canary_status, serving_status, workload_status
from components.monitor.canary_status import CanaryStatus
from components.monitor.serving_status import ReplicaProof, ServingVersion, SwapStep, minute
from components.monitor.workload_status import Day, Rate, WorkloadStatus
from components.pages import charts, templates

COLOURS = (charts.NEW, charts.THERE, charts.OTHER, charts.FURTHER)
OTHERS = "#b9c2c5"  # the colour of all further versions together

TRAFFIC_HEAD = (
    "version",
    "requests",
    "share",
    "fallbacks",
    "up, down",
    "disputed",
    "down (95 %)",
    "corrected (95 %)",
    "p50, p95",
    "price a request",
)
PROOF_HEAD = ("version", "replica", "result", "from its reference", "tolerance", "from its base")
HISTORY_HEAD = ("when (UTC)", "version", "what happened")
STEPS = {
    "flipped": "took over",
    "refused": "was refused: ",
    "withdrawn": "was withdrawn: ",
    "canary_began": "began to answer a share",
    "canary_ended": "ended as a canary: ",
    "recovered": "a swap that a crash cut off was undone",
}


def as_markdown(status: WorkloadStatus) -> str:
    """Return the Markdown page of Prefect's artifact."""
    return templates.render("monitor/serving.md.j2", status=status, **_sections(status))


def as_html(
    status: WorkloadStatus, traffic: Path, votes: Path, evidence: Path | None = None
) -> str:
    """Return a self-contained HTML page with both pictures, and that of the canary's evidence."""
    pictures = {"traffic": traffic, "votes": votes, "evidence": evidence}
    return templates.render(
        "monitor/serving.html.j2", status=status, pictures=pictures, **_sections(status)
    )


def _sections(status: WorkloadStatus) -> dict[str, object]:
    return {
        "facts": facts(status),
        "traffic": (TRAFFIC_HEAD, traffic_rows(status)),
        "proofs": (PROOF_HEAD, proof_rows(status)),
        "has_votes": any(day.votes for day in status.days),
        "history": (HISTORY_HEAD, [_history_row(step) for step in status.serving.history]),
        "canary": None if (canary := status.serving.canary) is None else _canary_section(canary),
    }


def canary_markdown(canary: CanaryStatus) -> str:
    """Return the Markdown of a canary alone, for its own artifact."""
    return templates.render("monitor/canary.md.j2", canary=_canary_section(canary))


def _canary_section(canary: CanaryStatus) -> dict[str, object]:
    word = "Ended as" if canary.is_over else "Stands"
    plan = ", then ".join(
        f"{share:.3g} for {seconds / 3600:.3g} h" for share, seconds in canary.steps
    )
    return {
        "facts": [
            ("Versions", f"{canary.version} beside {canary.champion} (canary {canary.id})"),
            (word, f"{canary.state}: {canary.reason}"),
            ("Started", serving_status.minute(canary.started_at)),
            ("Shares", f"{plan}; undecided after {canary.deadline_seconds / 3600:.3g} h"),
        ],
        "forecast": canary.forecast,
        "evidence": (canary_status.EVIDENCE_HEAD, canary_status.evidence_rows(canary)),
        "margin": f"{canary.margin:g}",
    }


def facts(status: WorkloadStatus) -> list[tuple[str, str]]:
    """Return the labelled facts: who serves, since when, proved when; what waits or is refused."""
    serving, champion = status.serving, status.serving.champion
    if not serving.is_running:
        last = f"version {champion.version} since {minute(champion.since)}" if champion else "none"
        return [("Serves", serving_status.sentence(serving)), ("Served last here", last)]
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


def proof_rows(status: WorkloadStatus) -> list[list[str]]:
    """Return a formatted row for each loaded version and replica."""
    loaded = [v for v in (status.serving.champion, status.serving.previous) if v is not None]
    return [
        [
            version.version,
            proof.replica,
            _result(version, proof),
            _nats(proof.from_reference),
            _nats(proof.tolerance),
            _nats(proof.from_base),
        ]
        for version in loaded
        for proof in version.proofs
    ]


def _result(version: ServingVersion, proof: ReplicaProof) -> str:
    if proof.objection is not None:
        return f"failed: {proof.objection}"
    return "proved" if version.has_effect else "proved, without effect"


def _nats(distance: float | None) -> str:
    return "not measured" if distance is None else f"{distance:.3g} nats"


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
        f"{latency.p50_ms:,.0f}, {latency.p95_ms:,.0f} ms" if latency else "not logged",
        workload_status.price_text(price, status.currency),
    ]


def _with_interval(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{rate.value:.1%} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def _history_row(step: SwapStep) -> list[str]:
    what = STEPS[step.step] + (step.reason if STEPS[step.step].endswith(" ") else "")
    repeated = f" ({step.times} times)" if step.times > 1 else ""
    return [minute(step.at), step.version, what + repeated]


def draw_traffic(status: WorkloadStatus, path: Path) -> None:
    """Write a PNG of the requests by day, stacked by version; what has no colour is one."""
    figure, axes = charts.sheet(3.4, left=0.1)
    last = status.at.date()
    dates = [last - timedelta(days=back) for back in range(status.span_days, -1, -1)]
    used = {date.fromisoformat(day.day) for day in status.days}
    dates = [day for day in dates if not used or day >= min(used)]
    bottom = [0] * len(dates)
    for name, colour, members in coloured_parts(status):
        counts = dict.fromkeys(dates, 0)
        for day in status.days:
            if day.model_name in members and date.fromisoformat(day.day) in counts:
                counts[date.fromisoformat(day.day)] += day.requests
        heights = [counts[day] for day in dates]
        axes.bar(range(len(dates)), heights, 0.8, bottom=bottom, color=colour, label=name)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    step = max(1, len(dates) // 10)
    names = [f"{day:%m-%d}" for day in dates]
    axes.set_xticks(range(0, len(dates), step), names[::step])
    axes.set_xlim(-0.7, max(1.0, len(dates) - 0.3))
    axes.set_ylim(bottom=0, top=None if any(bottom) else 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("requests", color=charts.INK, size=9)
    axes.grid(axis="y", color=charts.GRID, lw=0.8)
    if status.days:
        figure.legend(loc="upper center", ncols=3, frameon=False, fontsize=8)
    charts.save(figure, path)


def coloured_parts(status: WorkloadStatus) -> list[tuple[str, str, set[str]]]:
    """Return the name, the colour and the models of each part of a day's bar."""
    ordered = in_order(status)
    shown = ordered if len(ordered) <= len(COLOURS) else ordered[: len(COLOURS) - 1]
    parts = [
        (charts.shortened(label(status.workload, sums), 40), colour, {sums.model_name})
        for sums, colour in zip(shown, COLOURS, strict=False)
    ]
    rest = {sums.model_name for sums in ordered[len(shown) :]}
    return [*parts, (f"{len(rest)} others", OTHERS, rest)] if rest else parts


def draw_votes(status: WorkloadStatus, path: Path) -> None:
    """Write a PNG of the share of thumbs down of each version that has votes, with intervals."""
    voted = [sums for sums in in_order(status) if sums.votes]
    figure, axes = charts.sheet(1.5 + 0.35 * max(1, len(voted)))
    names = [charts.shortened(label(status.workload, sums)) for sums in voted]
    charts.rows(axes, names or ["no votes"])
    champion = status.serving.champion
    for row, sums in enumerate(voted):
        down = workload_status.rate(sums.down, sums.votes)
        assert down is not None
        serves = champion is not None and _is(sums, champion, status.workload)
        colour = charts.NEW if serves else charts.THERE
        axes.plot([100 * down.low, 100 * down.high], [row, row], color=colour, lw=2)
        axes.plot(100 * down.value, row, "o", color=colour, ms=6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("thumbs down, % of the votes, with 95 % intervals", color=charts.INK, size=9)
    charts.save(figure, path)


def _is(sums: Day, version: ServingVersion, workload: str) -> bool:
    return sums.model_name == f"{workload}@{version.version}"
