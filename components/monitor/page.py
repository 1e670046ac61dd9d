"""Word a workload's standing: as Markdown for Prefect, as one HTML page for a browser."""

from pathlib import Path

from components.monitor import live
from components.monitor.live import Day
from components.monitor.standing import Standing
from components.pages import jinja, markdown

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


def as_markdown(found: Standing) -> str:
    """Write the page that Prefect keeps."""
    models = [[markdown.code(name), *rest] for name, *rest in rows(found)]
    return jinja.render(
        "monitor/page.md.j2", standing=found, facts=facts(found), head=HEAD, rows=models
    )


def as_html(found: Standing, picture: Path) -> str:
    """Write one file that requests nothing else."""
    return jinja.render(
        "monitor/page.html.j2",
        found=found,
        facts=facts(found),
        head=HEAD,
        rows=rows(found),
        picture=picture,
    )


def facts(found: Standing) -> list[tuple[str, str]]:
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


def rows(found: Standing) -> list[list[str]]:
    """Give a row for each model, in words."""
    return [_row(one, found) for one in found.models]


def _row(one: Day, found: Standing) -> list[str]:
    rate = live.approval(one)
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
