"""Start a turn, or join the one under way, and follow it to its end from a terminal."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import httpx

from components import manifest
from flows import approvals, prefect_api, settings, stages
from flows.prefect_api import Run
from flows.screen import Screen
from flows.stack import control

T = TypeVar("T")

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""The server may be away this long (its supervisor restarts it) before following gives up."""


class TurnError(RuntimeError):
    """A turn, or its promotion, did not end well; running the command again goes on with it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a turn ended, as its manifest says; see ``flows.turn.Turned``."""

    ending: str
    evidence: Path | None
    promotion: UUID | None
    stages: list[stages.Stage]


def start(config: Path, workload: str, by: str = "") -> UUID:
    """Start a turn of the workload as somebody, or find the one that is under way."""
    if under_way := patiently(lambda: prefect_api.turns_under_way(config)):
        return under_way[0].id
    given = {"config": str(config), "by": by}
    tags, key = [approvals.workload_tag(workload)], str(uuid4())
    return patiently(lambda: prefect_api.start("turn/turn", given, tags, key)).id


def follow(run_id: UUID, workload: str, screen: Screen) -> Ended:
    """Show a turn's stages until it ends.

    Raises:
        TurnError: It crashed, failed or was cancelled.
    """
    folder = settings.load().turns / workload / str(run_id)
    run = wait(run_id, lambda: screen.show(stages.read(folder)))
    if not run.state or not run.state.is_completed():
        raise TurnError(trouble("turn", run))
    body = json.loads((folder / manifest.NAME).read_text())
    return Ended(
        ending=body["ending"],
        evidence=Path(body["evidence"]) if body["evidence"] else None,
        promotion=UUID(body["promotion"]) if body["promotion"] else None,
        stages=[stages.Stage(**stage) for stage in body["stages"]],
    )


def wait(run_id: UUID, meanwhile: Callable[[], None]) -> Run:
    """Poll a flow run until it is in a final state."""
    while True:
        run = read(run_id)
        meanwhile()
        if run.state and run.state.is_final():
            return run
        time.sleep(POLL_SECONDS)


def wait_until_asked(run_id: UUID) -> Run:
    """Poll a promotion until it waits for a person, or has ended."""
    while True:
        run = read(run_id)
        if run.state and (run.state.is_paused() or run.state.is_final()):
            return run
        time.sleep(POLL_SECONDS)


def wait_until_answered(run_id: UUID, pause_key: str) -> Run:
    """Poll a promotion that was answered until it has ended, or waits for another answer.

    Args:
        run_id: Its flow run.
        pause_key: What it waited for when it was answered.
    """
    while True:
        run = read(run_id)
        asks_again = approvals.pause_key(run) not in (None, pause_key)
        if asks_again or (run.state and run.state.is_final()):
            return run
        time.sleep(POLL_SECONDS)


def read(run_id: UUID) -> Run:
    """Read a flow run, patient with a server that is being restarted."""
    return patiently(lambda: prefect_api.read(run_id))


def patiently(ask: Callable[[], T]) -> T:
    """Ask the Prefect server something, again and again while its supervisor restarts it.

    Raises:
        TurnError: It does not answer, and nobody restarts it or that takes too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            home = settings.load()
            phase = control.status(home).phase
            if phase not in control.WORKING or time.monotonic() > deadline:
                raise TurnError(
                    f"the Prefect server at {home.prefect_url} does not answer, and the stack of "
                    f"{home.home} is {phase}; {home.remedy}, `flywheel status` shows it"
                ) from error
            time.sleep(1)


def trouble(what: str, run: Run) -> str:
    """Say how a run ended, why, and where to look."""
    state = f"{run.state.name}: {run.state.message or 'no message'}" if run.state else "no state"
    return (
        f"the {what} ended {state}\n"
        f"Its logs: {settings.load().prefect_url}/runs/flow-run/{run.id}\n"
        "What it finished is kept; run the same command again to go on."
    )
