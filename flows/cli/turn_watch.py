"""Start or join a turn from the terminal, follow it to its end and print a summary."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
from rich.console import Console

from components.gate import evidence_folder
from components.register import registry
from components.store import manifest
from flows import approvals, prefect_api, settings, stages
from flows.cli.progress import ProgressScreen, stage_outcome
from flows.prefect_api import Run
from flows.stack import control
from flows.stages import Stage

T = TypeVar("T")

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""The server may be away this long (its supervisor restarts it) before following gives up."""


class TurnError(RuntimeError):
    """A turn, or its promotion, did not end well; running the command again goes on with it."""


@dataclass(frozen=True, slots=True)
class TurnEnding:
    """How a turn ended, as its manifest says; see ``flows.turn.TurnResult``."""

    ending: str
    evidence: Path | None
    promotion: UUID | None
    stages: list[stages.Stage]


def start_turn(config: Path, workload: str, by: str = "") -> UUID:
    """Start a turn of the workload as somebody, or find the one that is under way."""
    if under_way := with_patience(lambda: prefect_api.turns_under_way(config)):
        return under_way[0].id
    given = {"config": str(config), "by": by}
    tags, key = [approvals.workload_tag(workload)], str(uuid4())
    return with_patience(lambda: prefect_api.start("turn/turn", given, tags, key)).id


def follow_stages(run_id: UUID, workload: str, screen: ProgressScreen) -> TurnEnding:
    """Show a turn's stages until it ends.

    Raises:
        TurnError: It crashed, failed or was cancelled.
    """
    folder = settings.load().turns / workload / str(run_id)
    run = wait_for_run(run_id, lambda: screen.show(stages.read(folder)))
    if not run.state or not run.state.is_completed():
        raise TurnError(failure_text("turn", run))
    body = json.loads((folder / manifest.NAME).read_text())
    return TurnEnding(
        ending=body["ending"],
        evidence=Path(body["evidence"]) if body["evidence"] else None,
        promotion=UUID(body["promotion"]) if body["promotion"] else None,
        stages=[stages.Stage(**stage) for stage in body["stages"]],
    )


def wait_for_run(run_id: UUID, meanwhile: Callable[[], None]) -> Run:
    """Poll a flow run until it is in a final state."""
    while True:
        run = read_run(run_id)
        meanwhile()
        if run.state and run.state.is_final():
            return run
        time.sleep(POLL_SECONDS)


def wait_until_asked(run_id: UUID) -> Run:
    """Poll a promotion until it waits for a person, or has ended."""
    while True:
        run = read_run(run_id)
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
        run = read_run(run_id)
        asks_again = approvals.pause_key(run) not in (None, pause_key)
        if asks_again or (run.state and run.state.is_final()):
            return run
        time.sleep(POLL_SECONDS)


def read_run(run_id: UUID) -> Run:
    """Read a flow run, patient with a server that is being restarted."""
    return with_patience(lambda: prefect_api.read(run_id))


def with_patience(ask: Callable[[], T]) -> T:
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
            phase = control.stack_status(home).phase
            if phase not in control.WORKING or time.monotonic() > deadline:
                raise TurnError(
                    f"the Prefect server at {home.prefect_url} does not answer, and the stack of "
                    f"{home.home} is {phase}; {home.remedy}, `flywheel status` shows it"
                ) from error
            time.sleep(1)


def failure_text(what: str, run: Run) -> str:
    """Say how a run ended, why, and where to look."""
    state = f"{run.state.name}: {run.state.message or 'no message'}" if run.state else "no state"
    return (
        f"the {what} ended {state}\n"
        f"Its logs: {settings.load().prefect_url}/runs/flow-run/{run.id}\n"
        "What it finished is kept; run the same command again to go on."
    )


Decide = Callable[[UUID], None]  # answers a waiting promotion on a person's behalf


@dataclass(frozen=True, slots=True)
class ApprovalWait:
    """How long a person was waited for, and what came of the promotion."""

    seconds: float
    outcome: str


def follow_turn(
    config: Path, workload: str, console: Console, decide: Decide | None = None, *, by: str = ""
) -> None:
    """Start or join a turn, show it, see its approval through, and print the summary.

    Args:
        config: The workload file.
        workload: Its id.
        console: Where to print.
        decide: Answers the approval; without it a person is waited for.
        by: Who starts it.
    """
    run_id = start_turn(config, workload, by)
    with ProgressScreen(console) as screen:
        ended = follow_stages(run_id, workload, screen)
    asked = await_decision(ended.promotion, workload, console, decide) if ended.promotion else None
    print_summary(workload, ended, asked, console)


def await_decision(
    promotion: UUID, workload: str, console: Console, decide: Decide | None
) -> ApprovalWait:
    """Print where the approval waits, and wait until it is decided and carried out."""
    started = time.monotonic()
    run = wait_until_asked(promotion)
    if run.state and run.state.is_paused():
        link = f"{settings.load().prefect_url}/runs/flow-run/{promotion}"
        console.print(
            f"\nThe gate passed; a person decides. Read and answer the form (Resume):\n  {link}"
        )
        console.print(
            f"or from another terminal:\n  {shell_command()} approve {workload} --as NAME\n"
            f'  {shell_command()} reject {workload} --as NAME --comment "why"',
            soft_wrap=True,
        )
        if decide:
            decide(promotion)
    with console.status("waiting for the decision"):
        run = wait_for_run(promotion, lambda: None)
    if not run.state or not run.state.is_completed():
        raise TurnError(failure_text("promotion", run))
    return ApprovalWait(time.monotonic() - started, run.state.message or "")


def shell_command() -> str:
    """Give the command as it can be typed here, its environment included."""
    home = settings.load()
    default = settings.load({})
    variables = [
        f"{name}={value}"
        for name, value, usual in (
            ("FLYWHEEL_HOME", home.home, default.home),
            ("FLYWHEEL_PREFECT_PORT", home.prefect_port, default.prefect_port),
            ("FLYWHEEL_MLFLOW_PORT", home.mlflow_port, default.mlflow_port),
        )
        if value != usual
    ]
    return " ".join([*variables, sys.argv[0]])


def print_summary(
    workload: str, ended: TurnEnding, asked: ApprovalWait | None, console: Console
) -> None:
    """Print what the turn came to: stages, scores, verdict and champion, in that order."""
    console.print("\nstages")
    for stage in [
        *ended.stages,
        *([Stage("promote", asked.seconds, said=asked.outcome)] if asked else []),
    ]:
        console.print(f"  {stage.name:<9} {stage.seconds or 0:7.1f} s  {stage_outcome(stage)}")
    champion = registry.champion_version(workload)
    folder = ended.evidence
    if folder is None and champion:
        folder = settings.load().evidence / workload / champion.evidence
    if folder:
        print_scores(folder, console)
    console.print(f"turn      {asked.outcome if asked else ended.ending}")
    if champion:
        page = f"#/models/{workload}/versions/{champion.number}"
        console.print(
            f"champion  {workload} version {champion.number} (models:/{workload}@champion), "
            f"adapter {champion.adapter}\n          {settings.load().mlflow_url}/{page}",
            soft_wrap=True,
        )
    else:
        console.print(f"champion  {workload} has none yet")


def print_scores(folder: Path, console: Console) -> None:
    """Print what evidence holds: scores of both, the verdict, what is kept and what it costs."""
    from components.gate.report import words  # it loads matplotlib, for the last lines of a turn

    found = evidence_folder.read(folder)
    verdict = json.loads((folder / evidence_folder.VERDICT).read_text())
    console.print(f"scores    {'':<12} {found.subject.opponent_name:>8} -> adapter")
    for metric, row in verdict["scores"].items():
        both = f"{_percent(row['opponent']):>8} -> {_percent(row['challenger']):>7}"
        console.print(f"  {metric:<20} {both}  {_interval_text(row)}", soft_wrap=True)
    _print_baselines(verdict, console)
    console.print(f"verdict   {found.judgement.outcome}")
    for line in (*found.judgement.reasons, *words.term_sentences(found.judgement)):
        console.print(f"  {line}", soft_wrap=True)
    if account := verdict.get("account"):  # older evidence has none
        console.print("cost")
    for line in account or ():
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _interval_text(row: Mapping[str, Any]) -> str:
    """Write the adapter's 95 % interval and how many requests it rests on."""
    low, high, clusters = row["low"], row["high"], row.get("clusters")
    interval = "" if low is None else f"({100 * low:.1f} to {100 * high:.1f})  "
    within = f" in {clusters} clusters" if clusters else ""  # older evidence has none
    return f"{interval}n={row['n']}{within}"


def _print_baselines(verdict: dict[str, Any], console: Console) -> None:
    """Print what needs no training scores, and which of it is beaten; older evidence has none."""
    baselines: dict[str, dict[str, float | None]] = verdict.get("baselines") or {}
    if not baselines:
        return
    names = [*next(iter(baselines.values()))]
    console.print(f"baselines {'':<12}" + "".join(f"{name:>14}" for name in names))
    for metric, row in baselines.items():
        values = ("not measured" if row[name] is None else _percent(row[name]) for name in names)
        console.print(f"  {metric:<20}" + "".join(f"{value:>14}" for value in values))
    for line in verdict["beside"]:
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
