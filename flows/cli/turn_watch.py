"""Start or join a turn from the terminal, follow it to its end and print a summary."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
from pydantic import TypeAdapter

from components.gate import evidence_folder
from components.register import registry
from components.store import file_locks, manifest, output_folders
from flows import approvals, prefect_api, settings, turn_progress
from flows.cli.console import console, print_line, print_sentence
from flows.cli.progress import ProgressScreen, stage_outcome
from flows.prefect_api import Run
from flows.stack import control
from flows.turn_progress import Stage

T = TypeVar("T")

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0  # how long the server may be away while its supervisor restarts it


class TurnError(RuntimeError):
    """A turn, or its promotion, did not end well; running the command again resumes it."""


@dataclass(frozen=True, slots=True)
class TurnEnding:
    """The end of a turn as in its manifest; see ``flows.turn.TurnResult``."""

    ending: str
    evidence: Path | None
    promotion: UUID | None
    stages: list[Stage]


@dataclass(frozen=True, slots=True)
class ApprovalWait:
    """How long a promotion waited for its decision, and its outcome."""

    seconds: float
    outcome: str


Decide = Callable[[UUID], None]  # answers a waiting promotion on a person's behalf


def start_turn(config: Path, workload: str, by: str = "", adapter: str = "") -> UUID:
    """Start a turn of the workload, or name and return the one that is under way."""
    parameters = {"config": str(config), "by": by, "adapter": adapter}
    tags, key = [approvals.workload_tag(workload)], str(uuid4())
    with file_locks.held(settings.load().locks / f"{workload}.start.lock"):
        under_way = with_patience(lambda: prefect_api.turns_under_way(config))
        if not under_way:
            run = with_patience(lambda: prefect_api.start("turn/turn", parameters, tags, key))
            print_line(f"started a turn of {workload}, which begins once a worker takes it")
            return run.id
    run = under_way[0]
    state = f" ({run.state.name}, {run.state.timestamp:%H:%M} UTC)" if run.state else ""
    print_line(f"joins the turn of {workload} that is under way{state}; it keeps its settings")
    return run.id


def follow_stages(run_id: UUID, workload: str, screen: ProgressScreen) -> TurnEnding:
    """Show a turn's stages until it ends.

    Raises:
        TurnError: It crashed, failed or was cancelled, or another machine's home has what it did.
    """
    folder = settings.load().turns / workload / str(run_id)
    run = wait_for_run(run_id, meanwhile=lambda: screen.show(turn_progress.read(folder)))
    if not run.state or not run.state.is_completed():
        raise TurnError(failure_text("turn", run))
    if not output_folders.fetch(folder):
        raise TurnError(
            f"following turn {run_id}: it has ended, but at another machine, as {folder} is not in "
            "this home; `flywheel pending` lists what waits for a decision, and `flywheel turn` "
            "shows a turn at the machine whose worker takes it"
        )
    return TypeAdapter(TurnEnding).validate_json((folder / manifest.NAME).read_bytes())


def is_over(run: Run) -> bool:
    """Return whether a flow run is in a final state."""
    return bool(run.state and run.state.is_final())


def is_over_or_paused(run: Run) -> bool:
    """Return whether a flow run has ended or waits for a person."""
    return is_over(run) or bool(run.state and run.state.is_paused())


def wait_for_run(
    run_id: UUID,
    until: Callable[[Run], bool] = is_over,
    meanwhile: Callable[[], None] = lambda: None,
) -> Run:
    """Poll a flow run, by default to its end; call ``meanwhile`` after each poll."""
    while True:
        run = with_patience(lambda: prefect_api.read(run_id))
        meanwhile()
        if until(run):
            return run
        time.sleep(POLL_SECONDS)


def with_patience(request: Callable[[], T]) -> T:
    """Return a request's answer from the Prefect server; retry while its supervisor restarts it.

    Raises:
        TurnError: It does not answer, and nothing restarts it or that takes too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return request()
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
    """Return how a run ended, why, and where its logs are."""
    state = f"{run.state.name}: {run.state.message or 'no message'}" if run.state else "no state"
    return (
        f"the {what} ended {state}\n"
        f"Its logs: {settings.load().run_page(run.id)}\n"
        "What it finished is kept; run the same command again to resume it."
    )


def follow_turn(
    config: Path,
    workload: str,
    decide: Decide | None = None,
    *,
    by: str = "",
    adapter: str = "",
) -> None:
    """Start or join a turn, show it, see its approval through, and print the summary.

    Args:
        config: The workload file.
        workload: Its id.
        decide: Answers the approval instead of a person.
        by: Who starts it.
        adapter: The key of an adapter to judge again instead of training one.
    """
    run_id = start_turn(config, workload, by, adapter)
    with ProgressScreen(console) as screen:
        ended = follow_stages(run_id, workload, screen)
    approval = await_decision(ended.promotion, workload, decide) if ended.promotion else None
    print_summary(workload, ended, approval)


def await_decision(promotion: UUID, workload: str, decide: Decide | None) -> ApprovalWait:
    """Print where the approval waits, and wait until it is decided and carried out."""
    started = time.monotonic()
    run = wait_for_run(promotion, until=is_over_or_paused)
    if run.state and run.state.is_paused():
        link = settings.load().run_page(promotion)
        evidence = approvals.asked_evidence(run)
        approve, reject = (
            answer_command(decision, workload, evidence) for decision in ("approve", "reject")
        )
        print_line(
            "\nThe gate passed; a person decides. Read and answer the form (Resume, in the menu at "
            f"the top right):\n  {link}\n"
            f"or from another terminal:\n  {approve} --as NAME\n"
            f'  {reject} --as NAME --comment "why"'
        )
        if decide:
            decide(promotion)
    with console.status("waiting for the decision"):
        run = wait_for_run(promotion)
    if not run.state or not run.state.is_completed():
        raise TurnError(failure_text("promotion", run))
    return ApprovalWait(time.monotonic() - started, run.state.message or "")


def answer_command(decision: str, workload: str, evidence: str) -> str:
    """Return the command that decides on this evidence and no other, as it can be typed here."""
    return f"{shell_command()} {decision} {workload} --evidence {evidence}"


def shell_command(*, starts: bool = False) -> str:
    """Return the command as it can be typed here, environment variables included.

    ``starts``: for `up`, which needs the gateway's port, too.
    """
    home = settings.load()
    default = settings.load({})
    variables = [
        f"{name}={shlex.quote(str(value))}"
        for name, value, usual in (
            ("FLYWHEEL_HOME", home.home, default.home),
            (settings.PREFECT_PORT, home.prefect_port, default.prefect_port),
            (settings.MLFLOW_PORT, home.mlflow_port, default.mlflow_port),
            (settings.SERVE_PORT, home.serve_port if starts else None, None),
        )
        if value != usual
    ]
    return " ".join([*variables, shlex.quote(sys.argv[0])])


def print_summary(workload: str, ended: TurnEnding, approval: ApprovalWait | None) -> None:
    """Print the stages, scores, verdict and champion of a turn, in that order."""
    print_line("\nstages")
    promoted = [Stage("promote", approval.seconds, said=approval.outcome)] if approval else []
    for stage in ended.stages + promoted:
        print_line(f"  {stage.name:<9} {stage.seconds or 0:7.1f} s  {stage_outcome(stage)}")
    champion = registry.champion_version(workload)
    folder = ended.evidence
    if folder is None and champion:
        folder = settings.load().evidence / workload / champion.evidence
    if folder:
        print_scores(folder)
    print_line(f"turn      {approval.outcome if approval else ended.ending}")
    if champion:
        page = f"#/models/{workload}/versions/{champion.number}"
        print_line(
            f"champion  {workload} version {champion.number} (models:/{workload}@champion), "
            f"adapter {champion.adapter}\n          {settings.load().mlflow_url}/{page}"
        )
    else:
        print_line(f"champion  {workload} has none yet")


def print_scores(folder: Path) -> None:
    """Print the scores of both models in evidence, the verdict with its reasons, and the costs."""
    from components.gate.report import words  # it loads matplotlib, for the last lines of a turn

    evidence = evidence_folder.read(folder)
    verdict = json.loads((folder / evidence_folder.VERDICT).read_text())
    print_line(f"scores    {'':<12} {evidence.subject.opponent_name:>8} -> adapter")
    for metric, row in verdict["scores"].items():
        both = f"{_percent(row['opponent']):>8} -> {_percent(row['challenger']):>7}"
        print_line(f"  {metric:<20} {both}  {_interval_text(row)}")
    _print_baselines(verdict)
    print_line(f"verdict   {evidence.judgement.outcome}")
    for line in (*evidence.judgement.reasons, *words.term_sentences(evidence.judgement)):
        print_sentence(line)
    if account := verdict["account"]:
        print_line("cost")
    for line in account:
        print_sentence(line)


def _interval_text(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    interval = "" if low is None else f"({100 * low:.1f} to {100 * high:.1f})  "
    return f"{interval}n={row['n']} in {row['clusters']} clusters"


def _print_baselines(verdict: dict[str, Any]) -> None:
    baselines: dict[str, dict[str, float | None]] = verdict["baselines"]
    if not baselines:
        return
    names = [*next(iter(baselines.values()))]
    print_line(f"baselines {'':<12}" + "".join(f"{name:>14}" for name in names))
    for metric, row in baselines.items():
        values = ("not measured" if row[name] is None else _percent(row[name]) for name in names)
        print_line(f"  {metric:<20}" + "".join(f"{value:>14}" for value in values))
    for line in verdict["beside"]:
        print_sentence(line)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
