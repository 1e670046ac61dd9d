"""Follow a turn from the terminal to its end, and say in a few lines what came of it."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console

from components.gate import evidence, terms
from components.register import registry
from flows import settings, watch
from flows.screen import Screen, outcome
from flows.stages import Stage

Decide = Callable[[UUID], None]
"""Answers a waiting promotion on a person's behalf."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How long a person was waited for, and what came of the promotion."""

    seconds: float
    said: str


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
    run_id = watch.start(config, workload, by)
    with Screen(console) as screen:
        ended = watch.follow(run_id, workload, screen)
    asked = ask(ended.promotion, workload, console, decide) if ended.promotion else None
    summarize(workload, ended, asked, console)


def ask(promotion: UUID, workload: str, console: Console, decide: Decide | None) -> Asked:
    """Print where the approval waits, and wait until it is decided and carried out."""
    started = time.monotonic()
    run = watch.wait_until_asked(promotion)
    if run.state and run.state.is_paused():
        link = f"{settings.load().prefect_url}/runs/flow-run/{promotion}"
        console.print(
            f"\nThe gate passed; a person decides. Read and answer the form (Resume):\n  {link}"
        )
        console.print(
            f"or from another terminal:\n  {command()} approve {workload} --as NAME\n"
            f'  {command()} reject {workload} --as NAME --comment "why"',
            soft_wrap=True,
        )
        if decide:
            decide(promotion)
    with console.status("waiting for the decision"):
        run = watch.wait(promotion, lambda: None)
    if not run.state or not run.state.is_completed():
        raise watch.TurnError(watch.trouble("promotion", run))
    return Asked(time.monotonic() - started, run.state.message or "")


def command() -> str:
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


def summarize(workload: str, ended: watch.Ended, asked: Asked | None, console: Console) -> None:
    """Print what the turn came to: stages, scores, verdict and champion, in that order."""
    console.print("\nstages")
    for stage in [
        *ended.stages,
        *([Stage("promote", asked.seconds, said=asked.said)] if asked else []),
    ]:
        console.print(f"  {stage.name:<9} {stage.seconds or 0:7.1f} s  {outcome(stage)}")
    champion = registry.champion(workload)
    folder = ended.evidence
    if folder is None and champion:
        folder = settings.load().evidence / workload / champion.evidence
    if folder:
        say_scores(folder, console)
    console.print(f"turn      {asked.said if asked else ended.ending}")
    if champion:
        page = f"#/models/{workload}/versions/{champion.number}"
        console.print(
            f"champion  {workload} version {champion.number} (models:/{workload}@champion), "
            f"adapter {champion.adapter}\n          {settings.load().mlflow_url}/{page}",
            soft_wrap=True,
        )
    else:
        console.print(f"champion  {workload} has none yet")


def say_scores(folder: Path, console: Console) -> None:
    """Print what evidence holds: scores of both, the verdict, what is kept and what it costs."""
    found = evidence.read(folder)
    verdict = json.loads((folder / evidence.VERDICT).read_text())
    console.print(f"scores    {'':<12} {found.subject.opponent_name:>8} -> adapter")
    for metric, row in verdict["scores"].items():
        both = f"{_share(row['opponent']):>8} -> {_share(row['challenger']):>7}"
        console.print(f"  {metric:<20} {both}  {_counts(row)}", soft_wrap=True)
    _say_baselines(verdict, console)
    console.print(f"verdict   {found.judgement.outcome}")
    for line in (*found.judgement.reasons, *terms.sentences(found.judgement)):
        console.print(f"  {line}", soft_wrap=True)
    if account := verdict.get("account"):  # older evidence has none
        console.print("cost")
    for line in account or ():
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _counts(row: Mapping[str, Any]) -> str:
    """Write the adapter's 95 % interval and how many requests it rests on."""
    low, high, clusters = row["low"], row["high"], row.get("clusters")
    interval = "" if low is None else f"({100 * low:.1f} to {100 * high:.1f})  "
    within = f" in {clusters} clusters" if clusters else ""  # older evidence has none
    return f"{interval}n={row['n']}{within}"


def _say_baselines(verdict: dict[str, Any], console: Console) -> None:
    """Print what needs no training scores, and which of it is beaten; older evidence has none."""
    baselines: dict[str, dict[str, float | None]] = verdict.get("baselines") or {}
    if not baselines:
        return
    names = [*next(iter(baselines.values()))]
    console.print(f"baselines {'':<12}" + "".join(f"{name:>14}" for name in names))
    for metric, row in baselines.items():
        values = ("not measured" if row[name] is None else _share(row[name]) for name in names)
        console.print(f"  {metric:<20}" + "".join(f"{value:>14}" for value in values))
    for line in verdict["beside"]:
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
