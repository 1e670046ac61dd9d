"""A real stack: what a stranger, a foreign page and a person with its login can do."""

import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from flows.settings import HOST
from flows.stack import control
from tests.support import browsers, logins, terminal
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ATTACK = """
async ([prefect, mlflow, token]) => {
  const login = {authorization: 'Basic ' + btoa(token), 'content-type': 'application/json'};
  const read = [];
  const tried = [
    [prefect + '/api/flow_runs/filter', 'POST', '{}'],
    [prefect + '/api/variables/', 'POST', '{"name": "owned", "value": "1"}'],
    [prefect + '/api/admin/version', 'GET'],
    [prefect + '/api/csrf-token?client=evil', 'GET'],
    [mlflow + '/api/2.0/mlflow/experiments/create', 'POST', '{"name": "owned"}'],
    [mlflow + '/api/2.0/mlflow/experiments/search?max_results=9', 'GET'],
    [mlflow + '/api/2.0/mlflow-artifacts/artifacts/owned.txt', 'PUT', 'owned'],
    [mlflow + '/', 'GET'],
  ];
  for (const [url, method, body] of tried) {
    for (const options of [
      {mode: 'cors', credentials: 'include'},
      {mode: 'cors', headers: login},
      {mode: 'no-cors', credentials: 'include'},
      {mode: 'no-cors', credentials: 'include', headers: {'content-type': 'text/plain'}},
    ]) {
      try {
        const answer = await fetch(url, {method, body, ...options});
        const text = await answer.text();
        if (text) read.push(method + ' ' + url + ': ' + text.slice(0, 80));
      } catch (error) {}
    }
  }
  for (const url of [mlflow + '/api/2.0/mlflow/experiments/create', prefect + '/api/variables/']) {
    const frame = document.createElement('iframe');
    frame.name = 'hidden';
    document.body.append(frame);
    const form = document.createElement('form');
    form.action = url; form.method = 'POST'; form.enctype = 'text/plain'; form.target = 'hidden';
    const field = document.createElement('input');
    field.name = '{"name": "owned", "x": "'; field.value = '"}';
    form.append(field);
    document.body.append(form);
    form.submit();
    await new Promise(done => setTimeout(done, 1500));
    try { if (frame.contentDocument.body.innerText) read.push('frame of ' + url); } catch (error) {}
  }
  return read;
}
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    shell = terminal.in_home(tmp_path_factory.mktemp("safe") / "home")
    done = shell.run("up")
    assert done.returncode == 0, done.stderr
    yield shell
    shell.run("down")


@pytest.fixture
def foreign_page() -> Iterator[str]:
    """A page on another port of this machine: the origin that MLflow itself would let in."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html><body>a game</body></html>")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stranger_reads_nothing_from_either_server(shell: Terminal) -> None:
    home = shell.settings
    for url in (
        f"{home.prefect_api_url}/admin/version",
        f"{home.prefect_api_url}/flow_runs/count",
        f"{home.mlflow_url}/",
        f"{home.mlflow_url}/version",
        f"{home.mlflow_url}/api/2.0/mlflow/registered-models/search",
        f"{home.mlflow_url}/api/2.0/mlflow-artifacts/artifacts",
        f"{home.mlflow_url}/graphql",
    ):
        for method in ("GET", "POST"):
            answer = httpx.request(method, url, trust_env=False)
            assert answer.status_code in {401, 403, 405}, f"{method} {url}: {answer.text}"
    assert control.stack_status(home).is_up, "and its own supervisor is let in"


def test_no_login_stands_in_an_argument_a_log_or_what_up_says(shell: Terminal) -> None:
    found = logins.of(shell.settings)
    secrets = [found.prefect.password, found.mlflow.password]
    said = [" ".join(process.cmdline()) for process in shell.processes()]
    said += [path.read_text(errors="replace") for path in shell.settings.logs.glob("*.log")]
    said += [shell.run("up").stderr, shell.run("status").stdout, shell.run("doctor").stdout]
    assert not [text for text in said for secret in secrets if secret in text]
    shown = shell.run("status", "--logins").stdout
    assert found.prefect.pair in shown
    assert found.mlflow.password in shown


def test_a_page_of_another_origin_changes_nothing_and_reads_nothing_in_a_browser_that_is_logged_in(
    shell: Terminal, foreign_page: str
) -> None:
    home, found = shell.settings, logins.of(shell.settings)
    with browsers.chromium() as browser:
        context = browser.new_context(
            http_credentials={"username": found.mlflow.user, "password": found.mlflow.password}
        )
        own = context.new_page()
        own.set_default_timeout(120_000)
        own.goto(f"{home.mlflow_url}/version", wait_until="commit")
        assert own.inner_text("body").strip(), "the browser is logged in"
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(foreign_page)
        servers = [home.prefect_url, home.mlflow_url]
        read = page.evaluate(ATTACK, [*servers, found.prefect.pair])
        read += page.evaluate(ATTACK, [*servers, found.mlflow.pair])
    assert read == []
    with logins.prefect(home) as prefect:
        assert prefect.post("/variables/filter", json={}).json() == []
    experiments = logins.mlflow(home).search_experiments()
    assert [each.name for each in experiments] == ["Default"]
    assert not list(home.mlflow_home.rglob("owned*"))


def test_a_name_that_was_made_to_point_here_gets_nothing(shell: Terminal) -> None:
    home, found = shell.settings, logins.of(shell.settings)
    rebound = {"host": f"evil.example:{home.prefect_port}"}
    pair = (found.mlflow.user, found.mlflow.password)
    for url in (f"{home.prefect_api_url}/health", f"{home.mlflow_url}/version"):
        assert httpx.get(url, headers=rebound, auth=pair, trust_env=False).status_code == 403


def test_who_holds_prefects_login_has_no_command_run(shell: Terminal, tmp_path: Path) -> None:
    """By the run's variables, by the deployment's, by the pool's template, by steps, by a file."""
    owned = tmp_path / "owned"
    command = f"touch {owned}"
    evil = tmp_path / "evil.py"
    evil.write_text(
        f"import os\nfrom prefect import flow\nos.system({command!r})\n@flow\ndef f(): ...\n"
    )
    step = {"prefect.deployments.steps.run_shell_script": {"script": command}}
    with logins.prefect(shell.settings) as prefect:
        ours = prefect.get("/deployments/name/maintenance/maintenance").json()
        chosen = {"job_variables": {"command": command}}
        path = f"/deployments/{ours['id']}/create_flow_run"
        assert prefect.post(path, json=chosen).status_code == 422, "the pool has no such variable"

        runs = [created(prefect, path, {})]
        reopen(prefect, "cpu")
        runs.append(created(prefect, path, chosen))
        time.sleep(35)  # the worker reads its pool with each heartbeat
        runs.append(created(prefect, path, chosen))
        made = {
            "flow_id": ours["flow_id"],
            "work_pool_name": "cpu",
            "path": str(tmp_path),
            "enforce_parameter_schema": False,
        }
        for name, more in {
            "steps": {"entrypoint": "flows.maintenance.maintenance", "pull_steps": [step]},
            "file": {"entrypoint": f"{evil}:f"},
            "folder": {"entrypoint": "evil.py:f"},
        }.items():
            new = created(prefect, "/deployments/", made | more | {"name": name})
            runs.append(created(prefect, f"/deployments/{new}/create_flow_run", {}))
        ended = [ending(prefect, run) for run in runs]
    assert ended[3:] == ["CRASHED"] * 3
    assert not owned.exists()
    assert set(ended[:3]) <= {"COMPLETED", "CANCELLED"}, "our flow ran, and not the command"
    assert "COMPLETED" in ended[:3]
    assert shell.run("up").returncode == 0


def test_a_pool_that_was_opened_is_named_by_the_doctor_and_closed_by_deploying(
    shell: Terminal,
) -> None:
    with logins.prefect(shell.settings) as prefect:
        reopen(prefect, "gpu")
        said = shell.run("doctor")
        assert said.returncode == 1
        assert "pool gpu: lets a run choose its command" in said.stdout
        shell.run("down")
        assert shell.run("up").returncode == 0
        closed = prefect.get("/work_pools/gpu").json()["base_job_template"]
    assert closed["variables"]["properties"] == {}
    assert "wrong" not in shell.run("doctor").stdout


def reopen(prefect: httpx.Client, pool: str) -> None:
    """Let the runs of a pool choose their command, as in Prefect's own template."""
    free = {"variables": {"properties": {"command": {"type": "string"}}}}
    free |= {"job_configuration": {"command": "{{ command }}"}}
    answered(prefect, "PATCH", f"/work_pools/{pool}", {"base_job_template": free})


def created(prefect: httpx.Client, path: str, body: Mapping[str, object]) -> str:
    """Create something and give its id."""
    return str(answered(prefect, "POST", path, body).json()["id"])


def answered(
    prefect: httpx.Client, method: str, path: str, body: Mapping[str, object] | None = None
) -> httpx.Response:
    """Ask until Prefect's database is not busy, as Prefect's own client does."""
    for _ in range(60):
        answer = prefect.request(method, path, json=body)
        if answer.status_code != 503:
            return answer.raise_for_status()
        time.sleep(0.5)
    pytest.fail(f"{path} was busy all the time")


def ending(prefect: httpx.Client, run: str) -> str:
    """Wait until a flow run has ended, and give the type of its state."""
    for _ in range(240):
        state = answered(prefect, "GET", f"/flow_runs/{run}").json()["state"]["type"]
        if state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            return str(state)
        time.sleep(1)
    pytest.fail(f"{run} has not ended")
