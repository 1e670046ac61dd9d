"""Monitor: how every workload stands, as Prefect artifacts, as pages and as Prometheus' figures."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger

from components import costs, manifest, warehouse
from components.decide.rules import OPEN
from components.monitor import figures, live, page, picture
from components.monitor.standing import Disk, Finding, Standing, Waiting
from components.register import registry
from components.register.registry import Version
from components.trigger import book
from components.trigger.settings import Trigger
from flows import approvals, champions, consider, dispatch, settings
from flows import config as configs
from flows.config import ConfigError
from flows.settings import Settings
from flows.workload import Workload

REGRESSED = "flywheel.champion.regressed"
"""The event that proposes a rollback; whoever is told of it decides."""

POLICY = "on_regression of the workload's file"
"""By whom a champion is rolled back where nobody had to be asked."""


@flow
def monitor(span_days: int = 30) -> str:
    """Look at every workload of the home; one whose file has mistakes does not stop the others."""
    home, found, broken = settings.load(), list[Standing](), list[str]()
    disk = weigh(home)
    home.monitor.mkdir(parents=True, exist_ok=True)
    for file in sorted(home.workloads.glob("*.yaml")):
        try:
            workload = configs.read(file.resolve())
        except ConfigError as error:
            broken.append(str(error))
            continue
        champion = registry.champion(workload.workload)
        found.append(look(workload, champion, span_days, disk))
        show(found[-1])
        answer_regression(workload, found[-1], champion)
    manifest.write_atomically(home.monitor / "metrics.prom", figures.text(found).decode())
    for one in broken:
        get_run_logger().error(one)
    return f"{len(found)} workloads, {len(broken)} files with mistakes; pages in {home.monitor}"


@task
def look(workload: Workload, champion: Version | None, span_days: int, disk: Disk) -> Standing:
    """Count by model, test for drift and falling votes, and see what waits."""
    now, home = datetime.now(UTC), settings.load()
    with warehouse.connect(home.warehouse) as con:
        since = now - timedelta(days=span_days)
        days = live.days(con, workload.workload, since)
        latencies = live.latencies(con, workload.workload, since)
        trigger = workload.trigger or Trigger()
        signs = consider.look(con, workload.workload, champion, trigger, now)
        last = book.entries(con, workload.workload, 1)
    prices = {one.model_name: live.price(one, workload.cost) for one in live.by_model(days)}
    return Standing(
        workload=workload.workload,
        at=now,
        span_days=span_days,
        champion=f"version {champion.number}, adapter {champion.adapter}" if champion else "none",
        answering=answering(home, champion),
        days=days,
        prices={model: price for model, price in prices.items() if price is not None},
        latencies=latencies,
        currency=workload.cost.currency,
        findings=[Finding(one.kind, one.figure, one.bound, one.told) for one in signs],
        last_start=f"{last[0].looked_at:%Y-%m-%d %H:%M}: {last[0].reason}" if last else "none",
        waiting=waiting(workload.workload),
        disk=disk,
    )


def answering(home: Settings, champion: Version | None) -> str:
    """Say how fast the champion answered when it was evaluated; not all logs say times."""
    cards = (home.scorecards / champion.name).glob("*") if champion else ()
    for folder in cards:
        body = manifest.read(folder) if manifest.is_finished(folder) else {}
        speed = costs.speed_in(body)
        if champion and speed and speed.timed and body.get("adapter") == champion.adapter:
            return (
                f"first token after {speed.first_token:.2f} s, then "
                f"{speed.tokens_per_second:.0f} tokens/s, on {speed.machine}"
            )
    return "not measured"


def waiting(workload: str) -> list[Waiting]:
    """List the approvals of a workload that wait."""
    url = settings.load().prefect_url
    return [
        Waiting(one.name, f"{url}/runs/flow-run/{one.flow_run_id}", one.since)
        for one in approvals.pending(approvals.workload_tag(workload))
    ]


@task
def show(found: Standing) -> None:
    """Keep the page in Prefect, where pages of one key form a history, and in the home."""
    folder = settings.load().monitor
    drawn = folder / f"{found.workload}.png"
    picture.draw(found.days, drawn)
    manifest.write_atomically(folder / f"{found.workload}.html", page.as_html(found, drawn))
    create_markdown_artifact(page.as_markdown(found), key=key(found.workload))


@task
def answer_regression(workload: Workload, found: Standing, champion: Version | None) -> None:
    """Say once of a champion that it is liked less than what was before it, and roll back if told.

    Which it was said of last is kept beside the pages.
    """
    reasons = [one.told for one in found.findings if one.kind == "votes" and one.is_given]
    said = settings.load().monitor / f"{found.workload}.regressed"
    if not reasons or champion is None or last_said(said) == champion.number:
        return
    emit_event(
        REGRESSED,
        resource={
            "prefect.resource.id": f"flywheel.workload.{found.workload}",
            "prefect.resource.name": found.workload,
        },
        payload={"workload": found.workload, "version": champion.number, "reason": reasons[0]},
    )
    if workload.trigger and workload.trigger.on_regression == "rollback":
        _roll_back(workload, reasons[0])
    manifest.write_atomically(said, champion.number)


def _roll_back(workload: Workload, reason: str) -> None:
    """Start the rollback that the file orders; where names are proved, nobody but this may."""
    if workload.approve.rules() == OPEN:
        given = {"workload": workload.workload, "by": POLICY, "reason": reason}
        dispatch.start("rollback/rollback", given, [approvals.workload_tag(workload.workload)])
        return
    champions.roll_back(
        settings.load(), workload.workload, None, by=POLICY, reason=reason, is_policy=True
    )


def last_said(path: Path) -> str | None:
    """Read of which version it was said last."""
    return path.read_text() if path.exists() else None


def key(workload: str) -> str:
    """Give the key of the artifacts that hold a workload's standing."""
    return approvals.page_key(workload).replace("gate-", "monitor-", 1)


@task
def weigh(home: Settings) -> Disk:
    """Measure what the home takes and what its disk has left."""
    used = sum(one.stat().st_size for one in home.home.rglob("*") if one.is_file())
    return Disk(used, shutil.disk_usage(home.home).free)
