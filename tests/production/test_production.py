"""One turn through ``infra/compose.yaml`` as processes; a replica and a worker are killed in it."""

import json
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from components.store import warehouse
from flows.jobs import runner
from tests.production.topology import Topology
from tests.support import small_workload
from tests.support import terminal as terminals
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.production, pytest.mark.timeout(1500)]

EPOCHS = 60

FORGOTTEN = "forgotten"
"""Another workload, one of whose people is erased."""


@pytest.fixture
def web(production: Topology) -> httpx.Client:
    """A browser that trusts the proxy's authority and has no credentials."""
    trusted = ssl.create_default_context(cafile=str(production.authority))
    return httpx.Client(verify=trusted, trust_env=False, timeout=30)


def test_nobody_gets_in_without_an_account(
    production: Topology, web: httpx.Client, account: tuple[str, str]
) -> None:
    version = f"{production.public('prefect')}/api/admin/version"
    models = f"{production.public('mlflow')}/api/2.0/mlflow/registered-models/search"
    user, password = production.secrets["PREFECT_AUTH_STRING"].split(":")
    workers = (user, password)
    assert web.get(version).status_code == web.get(models).status_code == 401
    assert web.get(version, auth=(account[0], account[1][::-1])).status_code == 401
    assert web.get(version, auth=workers).status_code == 401, "the workers' login is for inside"
    assert "www-authenticate" not in web.get(version).headers, "Prefect's page asks, no dialogue"
    assert web.get(version, auth=account).status_code == 200
    assert web.get(models, auth=account).status_code == 200
    inside = f"{production.inside('internal')}/api/admin/version"
    assert web.get(inside, auth=account).status_code == 401
    assert web.get(inside, auth=workers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", "block_documents/filter", id="secrets-of-blocks"),
        pytest.param("GET", "block_documents/%s", id="the-secret-of-a-block"),
        pytest.param("PATCH", "work_pools/cpu", id="a-pools-template"),
        pytest.param("POST", "work_pools/", id="a-new-pool"),
        pytest.param("POST", "deployments/", id="a-new-deployment"),
        pytest.param("PATCH", "deployments/%s", id="a-deployment"),
        pytest.param("DELETE", "flow_runs/%s", id="a-run"),
        pytest.param("POST", "flow_runs/", id="a-run-of-no-deployment"),
        pytest.param("POST", "flow_runs/%s/input", id="an-answer-past-the-form"),
        pytest.param("POST", "automations/", id="an-automation"),
        pytest.param("POST", "admin/database/clear", id="the-database"),
        pytest.param("GET", "admin/settings", id="the-servers-settings"),
    ],
)
def test_a_persons_account_opens_nothing_else_of_prefect(
    production: Topology, web: httpx.Client, account: tuple[str, str], method: str, path: str
) -> None:
    url = f"{production.public('prefect')}/api/{path.replace('%s', str(UUID(int=1)))}"
    answer = web.request(method, url, json=None if method == "GET" else {}, auth=account)
    assert answer.status_code == 403
    assert "CSRF" not in answer.text, "the proxy refuses it, not the missing token"


def test_a_persons_account_changes_nothing_in_mlflow(
    production: Topology, web: httpx.Client, account: tuple[str, str]
) -> None:
    api = f"{production.public('mlflow')}/api/2.0"
    operator = ("flywheel", production.secrets["MLFLOW_PASSWORD"])
    made = {"name": "guarded"}
    web.post(f"{api}/mlflow/registered-models/create", json=made, auth=operator).raise_for_status()
    alias = made | {"alias": "champion", "version": "1"}
    for method, path, body in (
        ("POST", "mlflow/registered-models/alias", alias),
        ("POST", "mlflow/registered-models/set-tag", made | {"key": "k", "value": "v"}),
        ("PATCH", "mlflow/registered-models/update", made | {"description": "mine"}),
        ("DELETE", "mlflow/registered-models/delete", made),
        ("PUT", "mlflow-artifacts/artifacts/owned.txt", {}),
        ("POST", "mlflow/users/create", {"username": "eve", "password": "a long password"}),
    ):
        answer = web.request(method, f"{api}/{path}", json=body, auth=account)
        assert answer.status_code == 403, f"{method} {path}: {answer.status_code} {answer.text}"


def test_a_page_elsewhere_cannot_act_with_a_persons_credentials(
    production: Topology, web: httpx.Client, account: tuple[str, str]
) -> None:
    asked = f"{production.public('prefect')}/api/flow_runs/filter"
    forged = web.post(asked, json={}, auth=account)
    assert forged.status_code == 403
    assert "CSRF" in forged.text


def test_the_receiver_takes_traffic_by_token_and_keeps_its_metrics_inside(
    production: Topology, terminal: Terminal, web: httpx.Client
) -> None:
    place = production.public("receiver")
    made = terminal.run("token", "add", "shop")
    assert made.returncode == 0, made.stderr
    token = made.stdout.split()[-1]
    row = {"workload_id": "shop", "request": {"messages": [{"role": "user", "content": "hi"}]}}
    row |= {"timestamp": 1_780_000_000, "response": {"id": "1", "choices": []}}
    headers = {"Authorization": f"Bearer {token}"}
    assert web.post(f"{place}/v1/interactions", json=row).status_code == 401
    assert web.post(f"{place}/v1/interactions", json=row, headers=headers).status_code == 200
    assert web.get(f"{place}/metrics").status_code == 404
    assert production.answers("receiver", "/metrics")


def test_a_turn_ends_well_though_a_replica_and_a_worker_are_killed_in_it(
    production: Topology,
    terminal: Terminal,
    person: Terminal,
    workloads: Path,
    web: httpx.Client,
) -> None:
    config = small_workload.write(workloads, epochs=EPOCHS)
    turn = person.start("turn", config)
    try:
        while steps_done(production) < 20:
            assert turn.poll() is None, turn.communicate()[0]
            time.sleep(0.2)
        production.kill("prefect-api-1")
        production.kill("worker-gpu-on-cpu")
        time.sleep(5)  # what watches over containers takes its time, too
        production.start("worker-gpu-on-cpu")
        said = terminals.said_until_asked(turn)
        assert terminals.QUESTION in said, said
    finally:
        turn.terminate()

    waiting = person.run("pending")
    assert waiting.stdout.startswith(f"{small_workload.WORKLOAD}  evidence "), waiting.stdout
    assert f"{production.public('prefect')}/v2/runs/flow-run/" in waiting.stdout.replace("\n", "")
    approved = person.answer("approve", small_workload.WORKLOAD, "--as", "a person")
    assert approved.returncode == 0, approved.stdout + approved.stderr
    production.require(lambda: "champion" in aliases(production, web), "the champion", 240)

    with warehouse.connect(production.home / "warehouse.duckdb") as con:
        decisions = con.execute("select decision, approver from raw.decisions").fetchall()
    assert decisions == [("approve", "a person")]
    ends = {"COMPLETED", "CRASHED"}
    production.require(lambda: set(run_states(terminal)) == ends, "the end of all runs")
    assert run_states(terminal)["CRASHED"] == 1, "the training that lost its worker"

    production.start("prefect-api-1")
    production.require(lambda: production.answers("prefect-api-1", "/api/health"), "the replica")


def test_an_erasure_flags_and_demotes_the_version_in_an_mlflow_elsewhere(
    production: Topology, terminal: Terminal, workloads: Path, web: httpx.Client
) -> None:
    config = small_workload.write(workloads / FORGOTTEN, workload=FORGOTTEN)
    small_workload.name_people(config.parent, 6)
    turn = terminal.start("turn", config)
    try:
        said = terminals.said_until_asked(turn)
        assert terminals.QUESTION in said, said
    finally:
        turn.terminate()
    assert terminal.answer("approve", FORGOTTEN, "--as", "a person").returncode == 0
    assert "champion" in aliases(production, web, FORGOTTEN)

    subject = ("--subject", "person-3-zq")
    erased = terminal.run("erase", *subject, "--yes", "--demote", "--config", config)
    assert erased.returncode == 0, erased.stdout + erased.stderr
    assert "1 model versions flagged" in erased.stdout
    assert f"not searched: the databases of {production.inside('internal')}" in erased.stdout
    assert aliases(production, web, FORGOTTEN) == {}
    assert terminal.run("erase", "--verify", *subject).returncode == 0


def steps_done(production: Topology) -> int:
    folders = (production.home / "jobs").glob("train-*")
    found = [runner.newest_progress(each) for each in folders]
    return max((progress.done for progress in found if progress), default=0)


def aliases(
    production: Topology, web: httpx.Client, workload: str = small_workload.WORKLOAD
) -> dict[str, str]:
    """Read the aliases of a workload's registered model, as any client of MLflow does."""
    url = f"{production.public('mlflow')}/api/2.0/mlflow/registered-models/get"
    answer = web.get(
        url,
        params={"name": workload},
        auth=("flywheel", production.secrets["MLFLOW_PASSWORD"]),
    )
    found: list[dict[str, str]] = answer.json().get("registered_model", {}).get("aliases", [])
    return {each["alias"]: each["version"] for each in found}


def run_states(terminal: Terminal) -> dict[str, int]:
    """Count the workload's flow runs in each state, by Prefect's own command line."""
    listed = ["prefect", "--no-prompt", "flow-run", "ls", "--limit", "100", "--output", "json"]
    done = subprocess.run(listed, env=terminal.env, capture_output=True, text=True, check=True)
    runs: list[dict[str, Any]] = json.loads(done.stdout)
    ours = [run for run in runs if str(run["name"]).endswith(f" {small_workload.WORKLOAD}")]
    states = [str(run["state_type"]) for run in ours]
    return {state: states.count(state) for state in set(states)}
