"""A real stack on which people sign what they decide, and somebody who holds both its logins."""

import re
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from mlflow import MlflowClient

from components.register import registry
from flows.settings import Settings
from tests.support import logins, small_workload, ssh, terminal
from tests.support.terminal import Terminal

RULES = """
approve:
  proof: signature
  approvers:
    - name: ada
      keys: ["%s"]
    - name: bob
      keys: ["%s"]
"""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
LINE = re.compile(r"```sh\n(.*)\n```")


@dataclass(frozen=True)
class Besieged:
    """A home of one workload; ``waiting`` is the promotion that asks about version 1."""

    shell: Terminal
    config: Path
    keys: Mapping[str, Path]
    waiting: str

    @property
    def home(self) -> Settings:
        return self.shell.settings

    @property
    def mlflow(self) -> MlflowClient:
        return logins.mlflow(self.home)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask Prefect's API with its login, until its database is not busy."""
        with logins.prefect(self.home) as prefect:
            for _ in range(60):
                answer = prefect.request(method, path, json=body)
                if answer.status_code != 503:
                    assert answer.is_success, answer.text
                    return answer.json() if answer.content else None
                time.sleep(0.5)
        pytest.fail(f"{path} was busy all the time")

    def start(self, deployment: str, **parameters: str) -> str:
        """Start a flow as anybody with Prefect's login can; give the run's id."""
        found = self.ask("GET", f"/deployments/name/{deployment}")["id"]
        body = {"parameters": parameters, "enforce_parameter_schema": False}
        return str(self.ask("POST", f"/deployments/{found}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self.ask("GET", f"/flow_runs/{run}")["state"])

    def wait(self, run: str, until: set[str] = ENDED) -> dict[str, Any]:
        """Wait until a run is in one of some states."""
        for _ in range(600):
            if (found := self.state(run))["type"] in until:
                return found
            time.sleep(1)
        pytest.fail(f"{run} has not ended")

    def wait_until_asked_again(self, key: str) -> None:
        """Wait until the promotion has heard what was answered and asks anew."""
        for _ in range(600):
            found = self.state(self.waiting)
            assert found["type"] not in ENDED, found
            if found["type"] == "PAUSED" and found["state_details"]["pause_key"] != key:
                return
            time.sleep(1)
        pytest.fail(f"{self.waiting} asks for nothing")

    def line(self) -> str:
        """Read the line of shell that the form of the waiting promotion shows."""
        key = self.state(self.waiting)["state_details"]["run_input_keyset"]["description"]
        found = self.ask("GET", f"/flow_runs/{self.waiting}/input/{key}")
        (line,) = LINE.findall(found)
        return str(line)

    def sign(self, who: str, decision: str, key: Path | None = None, **words: str) -> str:
        """Run the form's line in a shell, its beginning filled in; give all that it prints."""
        return ssh.run_line(self.line(), key or self.keys[who], who=who, decision=decision, **words)

    def champion(self) -> str | None:
        found: str | None = self.mlflow.get_registered_model(small_workload.WORKLOAD).aliases.get(
            "champion"
        )
        return found

    def crown_another(self) -> None:
        """Ask about version 2, on other evidence, and have ada approve it in a terminal."""
        self.config.write_text(self.config.read_text().replace("floor: 0.5", "floor: 0.4"))
        turn(self.shell, self.config)
        done = self.shell.answer(
            "approve", small_workload.WORKLOAD, "--as", "ada", "--key", self.keys["ada"]
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def last(self) -> str:
        """Read the newest line of the record that is about an evidence."""
        lines = self.shell.run("audit").stdout.splitlines()
        return [line for line in lines if "  evidence " in line][-1]

    def audit(self) -> "subprocess.CompletedProcess[str]":
        return self.shell.run("audit", "--verify")

    def put(self, path: str, content: bytes) -> None:
        """Write a file of MLflow's, by its own API of artifacts."""
        self.tried("PUT", path, content).raise_for_status()

    def get(self, path: str) -> bytes:
        return self.tried("GET", path).raise_for_status().content

    def tried(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        """Ask MLflow's API of artifacts for a file, whatever it answers."""
        login = logins.of(self.home).mlflow
        url = f"{self.home.mlflow_url}/api/2.0/mlflow-artifacts/artifacts/{path}"
        pair = (login.user, login.password)
        return httpx.request(method, url, content=content, auth=pair, trust_env=False, timeout=60)

    def files_of(self, number: str) -> str:
        """Name the folder of a version's files, below MLflow's root."""
        with logins.pointed_at(self.home):
            model_id = registry.logged_model_id(small_workload.WORKLOAD, number)
        model = self.mlflow.get_logged_model(model_id)
        return model.artifact_location.removeprefix("mlflow-artifacts:/")

    @contextmanager
    def changed(self, path: str, content: bytes) -> Generator[None]:
        """Have other bytes in a file of MLflow's for a while."""
        before = self.get(path)
        self.put(path, content)
        yield
        self.put(path, before)


def besieged(folder: Path) -> Iterator[Besieged]:
    """Bring a small workload to where its first version waits for a signed decision."""
    shell = terminal.in_home(folder / "home")
    done = shell.run("up")
    assert done.returncode == 0, done.stderr
    try:
        keys = {name: ssh.keygen(folder / "keys", name) for name in ("ada", "bob", "eve")}
        config = small_workload.write(folder / "small")
        listed = RULES % (ssh.public(keys["ada"]), ssh.public(keys["bob"]))
        config.write_text(config.read_text() + listed)
        yield Besieged(shell, config, keys, turn(shell, config))
    finally:
        shell.run("down")


def turn(shell: Terminal, config: Path) -> str:
    """Run a turn until it asks a person; give the run that asks."""
    going = shell.start("turn", config)
    said = terminal.said_until_asked(going)
    assert terminal.QUESTION in said, said
    assert going.stdout is not None
    address = going.stdout.readline()
    going.terminate()
    going.communicate()
    return address.strip().rpartition("/")[2]
