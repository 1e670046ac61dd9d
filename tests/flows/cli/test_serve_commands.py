"""`flywheel serve` as a process: it starts, refuses a second one, and leaves nothing behind."""

import json
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import terminal
from tests.support.terminal import Terminal

NOW = "2026-11-27T09:00:00+00:00"


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    """A home whose MLflow does not answer."""
    return terminal.in_home(tmp_path / "home", is_forked=True)


@contextmanager
def serving(shell: Terminal, *options: str) -> Generator[tuple["subprocess.Popen[str]", str]]:
    command = [shell.command, "serve", "--port", "0", *options]
    with subprocess.Popen(command, env=shell.env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[2]
        finally:
            process.kill()


def test_it_serves_without_mlflow_and_ends_at_a_signal(shell: Terminal):
    with serving(shell) as (process, url):
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert httpx.get(f"{url}/docs").status_code == 200
        assert "/v1/interactions" in httpx.get(f"{url}/openapi.json").json()["paths"]
        status = shell.run("serve", "status")
        assert (status.returncode, status.stderr) == (0, "")
        assert status.stdout == "no champion serves\nMLflow was not reached yet\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "no gateway has run" in shell.run("serve", "status").stderr


def test_without_the_receiver_its_paths_are_not_there(shell: Terminal):
    with serving(shell, "--no-receiver") as (_, url):
        assert "/v1/interactions" not in httpx.get(f"{url}/openapi.json").json()["paths"]
        assert httpx.post(f"{url}/v1/interactions", json={}).status_code == 404


def test_a_home_has_one_gateway(shell: Terminal):
    with serving(shell):
        second = shell.run("serve", "--port", "0")
        assert second.returncode == 1
        assert "another gateway of this home runs" in second.stderr
        assert "Traceback" not in second.stderr


def test_a_wrong_file_is_refused_with_every_mistake_and_the_doctor_says_so(shell: Terminal):
    file = shell.settings.serve_settings
    file.parent.mkdir()
    file.write_text("engine: {kind: vlm}\nlogging: never\n")
    ended = shell.run("serve")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{file}: 2 mistake(s)\n")
    workload = shell.settings.home.parent / "shop.yaml"
    workload.write_text("workload: shop\n")
    shell.settings.workloads.mkdir()
    (shell.settings.workloads / "shop.yaml").symlink_to(workload)
    results = json.loads(shell.run("doctor", "--json", workload).stdout)
    assert len([result for result in results if "shop.yaml" in result["about"]]) == 1
    assert [r["level"] for r in results if r["about"] == "serve.yaml"] == ["wrong"]


def test_the_help_shows_how_to_ask(shell: Terminal):
    text = shell.run("serve", "--help").stdout
    for part in ("/v1/chat/completions", "flywheel token add", "/v1/feedback", "--no-receiver"):
        assert part in text


@pytest.mark.parametrize(
    ("replicas", "refused", "code"),
    [
        pytest.param(["embedded"], [], 0, id="served"),
        pytest.param([], [], 1, id="no-replica"),
        pytest.param(["embedded"], [{"version": "8", "reason": "its base"}], 1, id="refused"),
    ],
)
def test_the_exit_code_says_whether_all_champions_serve(
    shell: Terminal, replicas: list[str], refused: list[dict[str, str]], code: int
):
    served = {"version": "7", "since": NOW, "proved_at": NOW, "unproved": False, "model": "m"}
    status = {
        "routes": {"support": {"champion": served | {"replicas": replicas}}},
        "refused": [{"workload": "support", **one} for one in refused],
        "knowledge_age_seconds": 1.0,
    }
    shell.settings.serve.mkdir(parents=True)
    (shell.settings.serve / "status.json").write_text(json.dumps(status))
    ended = shell.run("serve", "status")
    assert ended.returncode == code
    assert "support" in ended.stdout
    assert ("refused: support@8: its base" in ended.stderr) == bool(refused)
