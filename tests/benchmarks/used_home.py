"""A home that has been used for a while: many interactions, many turns, and a stack that is up."""

import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.monitor import turn_starts
from components.monitor.turn_starts import TurnStart
from components.register import tracking
from components.store import ledger, manifest, warehouse
from flows.settings import Settings
from tests.support import logins, tiny, versions
from tests.support.terminal import Terminal

WORKLOAD = "support"
SHARED = """\
workload: support
base: base
sources: {logs: [logs/*.jsonl], feedback: [feedback/*.jsonl]}
turn_schedule: null
collect_schedule: "0 0 1 1 *"
curate: {holdout_share: 0.2, validation_share: 0.05, most_lost: 1}
"""
FILE_ROWS, VOTE_EVERY = 10_000, 20
BEGIN = 1_760_000_000
QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
STAGES = ("collect", "curate", "train", "evaluate", "promote")


@dataclass(frozen=True)
class Size:
    """How much the home holds."""

    turns: int
    interactions: int


def write_logs(folder: Path, size: Size) -> Path:
    """Write logs, votes, a base and the workload's file; return the file."""
    tiny.build(folder / "base")
    for name in ("logs", "feedback"):
        (folder / name).mkdir()
    for first in range(0, size.interactions, FILE_ROWS):
        numbers = range(first, min(first + FILE_ROWS, size.interactions))
        lines = (json.dumps(_interaction(number)) for number in numbers)
        (folder / f"logs/{first}.jsonl").write_text("\n".join(lines) + "\n")
    votes = (json.dumps(_vote(number)) for number in range(0, size.interactions, VOTE_EVERY))
    (folder / "feedback/votes.jsonl").write_text("\n".join(votes) + "\n")
    config = folder / f"{WORKLOAD}.yaml"
    config.write_text(SHARED)
    return config


def fill(shell: Terminal, config: Path, size: Size) -> None:
    """Collect and curate the logs, and leave what so many turns leave behind; the stack is up."""
    for command in (("collect", config), ("curate", config), ("schedule", config)):
        ended = shell.run(*command)
        assert ended.returncode == 0, ended.stderr
    home = shell.settings
    with logins.pointed_at(home):
        os.environ |= QUIET
        for number in range(1, size.turns + 1):
            _finish_turn(home, config.parent / "base", number)
    _post_runs(home, size)


def _post_runs(home: Settings, size: Size) -> None:
    """Have Prefect know the runs of the turns, and one promotion that waits for a person."""
    with logins.prefect(home) as prefect:
        flows = {name: _flow_id(prefect, name) for name in ("turn", *STAGES)}
        for number in range(1, size.turns + 1):
            for name, flow_id in flows.items():
                _post_run(prefect, flow_id, f"{WORKLOAD} {name} {number}", number, "COMPLETED")
        _post_run(prefect, flows["promote"], f"{WORKLOAD} waits", size.turns + 1, "PAUSED")


def _interaction(number: int) -> dict[str, Any]:
    topic = f"order {number} of customer {number * 7919 % 100_003} is {number * 31 % 977} days late"
    return {
        "timestamp": BEGIN + number,
        "workload_id": WORKLOAD,
        "client_id": "app",
        "model": "gpt-production",
        "request": {"messages": [{"role": "user", "content": f"Where is it? My {topic}."}]},
        "response": {
            "id": f"answer-{number}",
            "choices": [{"message": {"role": "assistant", "content": f"We look: {topic}."}}],
        },
    }


def _vote(number: int) -> dict[str, Any]:
    return {
        "timestamp": BEGIN + number + 60,
        "workload_id": WORKLOAD,
        "client_id": "app",
        "response_id": f"answer-{number}",
        "actor_id": f"person-{number}",
        "kind": "thumb",
        "value": "down" if number % 3 else "up",
    }


def _finish_turn(home: Settings, base: Path, number: int) -> None:
    """Leave the outputs, the MLflow run and version, the decisions and the start of a turn."""
    key, now = f"a{number}", versions.NOW + timedelta(days=number)
    snapshot = _snapshot(home, number)
    versions.approve(WORKLOAD, number, base)
    run = tracking.open_run(WORKLOAD, key, params={"r": 16}, tags={"flywheel.snapshot": "s"})
    tracking.log_scores(run, {"correct_name": 0.5 + number / 100}, [])
    tracking.close_run(run, "FINISHED")
    card = {"adapter": key, "task": "holdout", "base": "b1"}
    subject = {
        "holdout_version": "v1",
        "challenger_scorecard": f"c{number}",
        "opponent_scorecard": f"c{number - 1}",
    }
    verdict = {"outcome": "pass", "reasons": ["better"]}
    judged = {"judgement": verdict, "subject": subject, "policy": {}, "scores": {}}
    made: list[tuple[Path, str, dict[str, Any]]] = [
        (home.adapters / WORKLOAD / key, "adapter", {"snapshot": snapshot.name, "base": "b1"}),
        (home.scorecards / WORKLOAD / f"c{number}", "scorecard", card),
        (home.evidence / WORKLOAD / f"e{number}", "evidence", judged),
    ]
    with warehouse.connect(home.warehouse) as con:
        for folder, kind, body in made:
            folder.mkdir(parents=True, exist_ok=True)
            manifest.write(folder, kind=kind, now=now, body=body)
            ledger.record_output(con, WORKLOAD, folder, now=now)
        for kind in ("sealed", "looked"):
            told = {"holdout_version": "v1", "alpha": 0.05, "number": number, "seal": number}
            body = json.dumps(told | {"metric": "correct_name"})
            event = LogEvent(
                kind, WORKLOAD, f"p{number}", f"run-{number}", now, attempt=0, body=body
            )
            with warehouse.transaction(con):
                decision_log.append_event(con, event)
        for hour in range(6):
            at, is_last = now + timedelta(hours=hour), hour == 5
            reason = "30 new requests" if is_last else "nothing new"
            entry = TurnStart(f"{number}-{hour}", WORKLOAD, "trigger", is_last, reason, at)
            turn_starts.record_start(con, entry)


def _snapshot(home: Settings, number: int) -> Path:
    """Copy what was curated as the snapshot of a turn."""
    root = home.snapshots / WORKLOAD
    first = next(path for path in sorted(root.iterdir()) if not path.name.startswith("s-"))
    copied = root / f"s-{number}"
    copytree(first, copied)
    return copied


def _flow_id(prefect: httpx.Client, name: str) -> str:
    return str(prefect.get(f"/flows/name/{name}").raise_for_status().json()["id"])


def _post_run(prefect: httpx.Client, flow_id: str, name: str, number: int, state: str) -> None:
    details = {"pause_key": "promotion-gate"} if state == "PAUSED" else {}
    run = {
        "flow_id": flow_id,
        "name": name,
        "tags": [f"workload:{WORKLOAD}", f"evidence:e{number}"],
        "state": {
            "type": state,
            "name": "Suspended" if details else "Completed",
            "state_details": details,
        },
    }
    while (answer := prefect.post("/flow_runs/", json=run)).status_code == 503:
        time.sleep(0.5)  # SQLite is busy now and then
    answer.raise_for_status()
