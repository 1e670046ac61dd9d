"""Consider: look for signs that a turn is worth it, ask for one or not, and write down why."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow, task
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from components import warehouse
from components.decide import record
from components.register import registry
from components.trigger import book, deciding, feedback, inputs, votes
from components.trigger.book import Start
from components.trigger.settings import Trigger
from components.trigger.signs import Sign
from components.warehouse import Connection
from flows import dispatch, run_inputs, settings
from flows.run_names import run_name
from flows.workload import Workload

WANTED = "flywheel.turn.wanted"
"""The event that asks for a turn; an automation starts it."""

LOST_AFTER = timedelta(minutes=10)
"""An event that no turn has answered by then was lost: Prefect forgets what it can't take."""


@flow(flow_run_name=run_name)
def consider(config: str) -> str:
    """Ask for a turn if there is reason for one; first for those whose event was lost."""
    workload = run_inputs.workload(config)
    now = datetime.now(UTC)
    caught_up = catch_up(config, workload.workload, now)
    start, signs = weigh(workload, config, now)
    enter(start, signs)
    if start.started:
        ask(config, start)
    said = "asks for a turn" if start.started else "no turn"
    get_run_logger().info("%s: %s: %s", workload.workload, said, start.reason)
    return f"{caught_up} lost turns started; {said}: {start.reason}"


@task
def catch_up(config: str, workload: str, now: datetime) -> int:
    """Start the turns that were asked for while nobody heard it."""
    with warehouse.connect(settings.load().warehouse) as con:
        lost = book.unclaimed(con, workload, now - LOST_AFTER)
    for one in lost:
        dispatch.start("turn/turn", {"config": config, "start": one.start_id}, [])
    return len(lost)


@task
def weigh(workload: Workload, config: str, now: datetime) -> tuple[Start, list[Sign]]:
    """Look at feedback, inputs and votes, and weigh them against cool-down and budget."""
    trigger = workload.trigger or Trigger()
    champion = registry.champion(workload.workload)
    under_way = bool(dispatch.turns_under_way(Path(config)))
    with warehouse.connect(settings.load().warehouse) as con:
        signs = look(con, workload.workload, champion, trigger, now)
        earlier = [
            one.looked_at for one in book.entries(con, workload.workload, None) if one.started
        ]
    choice = deciding.choose(signs, earlier, trigger, under_way=under_way, now=now)
    start = Start(
        start_id=str(flow_run.id),
        workload_id=workload.workload,
        cause="trigger",
        started=choice.starts,
        reason=choice.reason,
        looked_at=now,
    )
    return start, signs


def look(
    con: Connection,
    workload: str,
    champion: registry.Version | None,
    trigger: Trigger,
    now: datetime,
) -> list[Sign]:
    """Give the signs there are; without a turn so far only the feedback counts."""
    since = book.learned_until(con, workload, now)
    crowned = record.approved_at(con, champion.evidence) if champion else None
    found = [
        feedback.look(con, workload, since or datetime.fromtimestamp(0, UTC), trigger),
        inputs.look(con, workload, since, trigger) if since else None,
        votes.look(con, workload, crowned, trigger) if crowned else None,
    ]
    return [sign for sign in found if sign]


@task
def enter(start: Start, signs: list[Sign]) -> None:
    """Write down what was considered, before anything is asked for."""
    with warehouse.connect(settings.load().warehouse) as con:
        book.enter(con, start, signs)


@task
def ask(config: str, start: Start) -> None:
    """Emit the event that asks for a turn."""
    emit_event(
        WANTED,
        resource={
            "prefect.resource.id": f"flywheel.workload.{start.workload_id}",
            "prefect.resource.name": start.workload_id,
        },
        payload={"config": config, "start": start.start_id, "reason": start.reason},
    )
