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


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    """A home whose MLflow does not answer."""
    return terminal.in_home(tmp_path / "home")


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
        assert "MLflow was not reached yet" in status.stdout
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
        assert shell.run("serve", "prove", "--json").returncode == 0


def test_a_wrong_file_is_refused_with_every_mistake_and_the_doctor_says_so(shell: Terminal):
    file = shell.settings.serve_settings
    file.parent.mkdir()
    file.write_text("engine: {kind: vlm}\nlogging: never\n")
    ended = shell.run("serve")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{file}: 2 mistake(s)\n")
    results = json.loads(shell.run("doctor", "--json").stdout)
    assert [r["level"] for r in results if r["about"] == "serve.yaml"] == ["wrong"]
