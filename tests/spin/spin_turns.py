"""One turn of a spin: from enough answers to the version that serves, and its score."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import httpx

from components.receive.settings import Limits
from components.register import registry
from components.release.rollback_rules import Order
from flows import gateway_status
from flows.canary import canary_rollouts, settle_rollouts
from flows.canary.canary_rollouts import RolloutError
from flows.cli import demo_command, turn_watch
from flows.cli.console import console, print_line
from flows.cli.progress import ProgressScreen
from flows.cli.turn_watch import TurnError
from flows.settings import Settings
from tests.spin import people, sealed_score
from tests.spin.sealed_score import Ask
from tests.spin.spin_plan import WORKLOAD, SpinError, SpinFiles, SpinPlan
from tests.spin.spin_record import SpinState, SpinTurn

T = TypeVar("T")

CANARY_LOOK_SECONDS = 3.0
PATIENCE_SECONDS = 1800.0  # for a version to be proved while a training takes the machine


def run_turn(
    settings: Settings,
    files: SpinFiles,
    plan: SpinPlan,
    config: Path,
    state: SpinState,
    ask: Ask,
) -> SpinState:
    """Run one turn, or follow the one that an interruption left, to the end of its swap."""
    number = len(state.turns) + 1
    print_line(f"\nturn {number} of {plan.turns}")
    is_resumed = state.run is not None
    if state.run is None:
        state = _start(files, plan, config, state)
    try:
        ended = _follow(state)
    except TurnError:
        if not is_resumed:
            raise
        print_line("the interrupted turn did not survive: another one resumes it")
        state = _start(files, plan, config, state)
        ended = _follow(state)
    outcome = ended.ending
    if (promotion := ended.promotion) is not None:
        try:
            outcome = _see_approved(settings, promotion, ended.evidence)
        except TurnError as error:
            if not is_resumed:
                raise
            print_line(f"{error}")
            outcome = "promotion failed"
    champion = registry.champion_version(WORKLOAD)
    if champion is not None:
        _wait_until_served(settings, champion.number)
    answers = len(people.read_answers(files.answers))
    sealed: Mapping[str, bool] = {}
    if champion is not None:
        before = state.turns[-1] if state.turns else None
        if before is not None and before.version == champion.number:
            sealed = before.sealed
        else:
            with console.status("asking the sealed requests"):
                sealed = sealed_score.score(plan.requests.sealed, champion.number, ask)
        print_line(
            f"version {champion.number} serves: right by name on {sum(sealed.values())} of "
            f"{len(sealed)} sealed requests"
        )
    version = champion.number if champion else None
    return state.ended(SpinTurn(number, outcome, answers, version, sealed))


def _see_approved(settings: Settings, promotion: UUID, evidence: Path | None) -> str:
    """Approve a promotion and see its canary through; return how it ended.

    Raises:
        TurnError: The promotion failed.
    """
    approve = demo_command.approve_promotion
    waited = _patiently(lambda: turn_watch.await_decision(promotion, WORKLOAD, approve))
    print_line(waited.outcome)
    return _await_canary(settings, evidence) or "approved"


def _start(files: SpinFiles, plan: SpinPlan, config: Path, state: SpinState) -> SpinState:
    """Start a turn once there is enough to learn from, and note its run."""
    needed = state.turns[-1].answers + plan.fresh if state.turns else plan.first
    with console.status("") as spinner:
        while (count := len(people.read_answers(files.answers))) < needed:
            spinner.update(f"{count} of {needed} answers")
            time.sleep(people.LOOK_SECONDS)
    time.sleep(people.LOOK_SECONDS + Limits().segment_seconds)  # people judge, a segment is sealed
    print_line(f"{len(people.read_answers(files.answers))} answers so far")
    state = state.started(str(turn_watch.start_turn(config, WORKLOAD)))
    state.write(files.state)
    return state


def _follow(state: SpinState) -> turn_watch.TurnEnding:
    assert state.run is not None
    run = UUID(state.run)
    with ProgressScreen(console) as screen:
        return _patiently(lambda: turn_watch.follow_stages(run, WORKLOAD, screen))


def _patiently(step: Callable[[], T]) -> T:
    """Repeat a step while the Prefect server is only slow: nobody watches, unlike in a turn."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return step()
        except TurnError as error:
            if not isinstance(error.__cause__, httpx.HTTPError) or time.monotonic() > deadline:
                raise
            print_line("the Prefect server is slow to answer; waiting on")


def _await_canary(settings: Settings, evidence: Path | None) -> str | None:
    """Wait for the end of the canary of this evidence; return it, ``None`` if there was none.

    What is undecided at its deadline goes back by an order: somebody has to decide then.
    """
    rollouts = canary_rollouts.rollouts_of(settings, WORKLOAD)
    digest = evidence.name if evidence else ""
    newest_first = reversed(rollouts)
    began = next((r for r in newest_first if r.intention.evidence_digest == digest), None)
    if began is None:
        return None
    versions = began.intention.version, began.intention.champion
    print_line("version {} answers a share beside version {}".format(*versions))
    with console.status("") as spinner:
        while True:
            seen = canary_rollouts.read_canaries(settings, WORKLOAD)
            canary = next(each for each in seen if each.id == began.id)
            if canary.is_over and canary_rollouts.running(settings, WORKLOAD) is None:
                break
            spinner.update(canary.sentence)
            if canary.state == "undecided":
                order = Order(
                    WORKLOAD, None, demo_command.APPROVER, "undecided at its deadline, in a spin"
                )
                with suppress(RolloutError):  # its evidence has decided in the meantime
                    settle_rollouts.stop_by_order(settings, order, "champion")
            time.sleep(CANARY_LOOK_SECONDS)
    print_line(canary.sentence)
    return f"approved; canary: {canary.state}"


def _wait_until_served(settings: Settings, version: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    with console.status(f"the gateway proves version {version}"):
        while True:
            serving = gateway_status.read_serving(settings, WORKLOAD)
            champion = serving.champion
            if serving.is_running and champion is not None and champion.version == version:
                return
            if time.monotonic() > deadline:
                raise SpinError(
                    f"waiting for version {version} for {PATIENCE_SECONDS:,.0f} s; the gateway "
                    f"says: {gateway_status.describe(settings, WORKLOAD)}"
                )
            time.sleep(1)
