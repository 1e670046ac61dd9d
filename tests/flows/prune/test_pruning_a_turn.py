"""On a real stack: what a lost turn left is pruned, and nothing that a version needs."""

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from components.store import manifest, output_folders
from flows.settings import Settings
from tests.support import logins, nights, small_workload, terminal
from tests.support.small_workload import WORKLOAD
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

AGO = timedelta(days=100)


def test_a_lost_turn_is_pruned_and_the_champion_is_traced_verified_and_challenged_as_before(
    shell: Terminal, tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "small")
    turn = shell.start("turn", config)
    assert terminal.QUESTION in terminal.said_until_asked(turn)
    assert shell.answer("approve", WORKLOAD, "--as", "ann").returncode == 0
    turn.communicate()
    for first in (100, 200):  # of which none is better than the champion
        small_workload.add_log(tmp_path / "small", first, 16)
        lost = shell.run("turn", config)
        assert "inconclusive" in lost.stdout or "fail" in lost.stdout, lost.stdout + lost.stderr
    home = shell.settings
    let_time_pass(home)
    second = sorted(home.adapters.glob(f"{WORKLOAD}/*"), key=made_at)[1]
    lineage = shell.run("lineage", WORKLOAD).stdout

    done = shell.run("prune", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left alone" not in done.stdout, done.stdout
    assert "1  adapters" in done.stdout
    assert not second.exists()
    assert len(output_folders.find(home.evidence / WORKLOAD)) == 3
    assert shell.run("lineage", WORKLOAD).stdout == lineage
    audit = shell.run("audit", "--verify")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert "nothing that old can go" in shell.run("prune").stdout
    small_workload.add_log(tmp_path / "small", 300, 16)
    again = shell.run("turn", config)
    assert "inconclusive" in again.stdout or "fail" in again.stdout, again.stdout + again.stderr

    let_time_pass(home)
    third = sorted(home.adapters.glob(f"{WORKLOAD}/*"), key=made_at)[1]
    small_workload.add_log(tmp_path / "small", 400, 16)
    shell.run("turn", config)
    config.write_text(config.read_text() + "prune_days: 30\n")
    assert shell.run("schedule", config).returncode == 0
    assert pruned_on_schedule(home, config) == "COMPLETED"
    assert not third.exists()
    assert shell.run("lineage", WORKLOAD).stdout == lineage


def pruned_on_schedule(home: Settings, config: Path) -> str:
    """Have Prefect run what a schedule of the deployment `prune` would; return the run's state."""
    with logins.prefect(home) as prefect:
        deployment = prefect.get("/deployments/name/prune/prune").raise_for_status().json()
        (schedule,) = deployment["schedules"]
        assert schedule["parameters"] == {"config": str(config)}
        body = {"parameters": schedule["parameters"], "state": {"type": "SCHEDULED"}}
        run = prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json=body).json()
        while (state := prefect.get(f"/flow_runs/{run['id']}").json()["state"]["type"]) not in (
            "COMPLETED",
            "FAILED",
            "CRASHED",
        ):
            time.sleep(1)
    return state


def made_at(folder: Path) -> str:
    return str(manifest.read(folder)["created_at"])


def let_time_pass(home: Settings) -> None:
    """Let all that the home has be a hundred days old."""
    for root in (home.snapshots, home.adapters, home.scorecards, home.evidence):
        for path in root.glob(f"*/*/{manifest.NAME}"):
            body = json.loads(path.read_text())
            at = datetime.fromisoformat(body["created_at"]) - AGO
            path.write_text(json.dumps({**body, "created_at": at.isoformat()}))
    for job in home.jobs.glob("*"):
        nights.age(job, datetime.now().astimezone() - AGO)
