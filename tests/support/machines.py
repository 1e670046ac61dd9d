"""Machines that share two servers and an object store, and nothing else.

Each is a folder with a home. What runs at one has its own mount namespace, in which the folders of
the others are empty.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from flows import access
from flows.settings import Settings
from flows.stack import stack_services
from tests.support.terminal import COMMAND, Terminal, evidence_waiting, in_home

SERVERS = "servers"


@dataclass(slots=True)
class Machines:
    """The machines in a folder, by their names."""

    folder: Path
    store: Mapping[str, str]
    """The variables that name the store, and let in."""

    names: tuple[str, ...]
    running: dict[str, "subprocess.Popen[bytes]"] = field(
        default_factory=dict[str, "subprocess.Popen[bytes]"]
    )

    _servers: Terminal = field(init=False)

    def __post_init__(self) -> None:
        for name in (SERVERS, *self.names):
            (self.folder / name).mkdir(parents=True)
        self._servers = in_home(self.folder / SERVERS / "home")

    @property
    def server_settings(self) -> Settings:
        """Where the servers are, for a client that may see their machine."""
        return self._servers.settings

    def start_servers(self) -> None:
        """Start Prefect and MLflow, and deploy the flows."""
        settings = self.server_settings
        access.secure_home(settings)
        access.ensure_logins(settings)
        settings.logs.mkdir()
        settings.scratch.mkdir()
        settings.mlflow_home.mkdir()
        env = stack_services.service_environment(settings, self._servers.env)
        for service in stack_services.servers(settings):
            self._launch(SERVERS, service.name, list(service.command), env)
            assert service.health_url is not None
            url = service.health_url
            self.require(service.name, lambda url=url: _answers(url))
        deploy = [sys.executable, "-m", "flows.deploy"]
        subprocess.run(deploy, env=env, check=True, capture_output=True)

    def environment(self, name: str) -> dict[str, str]:
        """The variables at a machine: it knows the servers by their addresses and logins."""
        client = stack_services.client_environment(self.server_settings)
        home = self.folder / name / "home"
        own = {"FLYWHEEL_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
        kept = {key: value for key, value in self._servers.env.items() if "_PORT" not in key}
        kept |= {key: value for key, value in client.items() if "_PORT" not in key}
        return kept | dict(self.store) | own | {"PREFECT_WORKER_QUERY_SECONDS": "2"}

    def start_worker(self, name: str, pool: str, limit: int = 1) -> None:
        """Start a worker at a machine."""
        command = [sys.executable, "-m", "flows.stack.worker", pool, str(limit)]
        (self.folder / name / "home").mkdir(exist_ok=True, mode=0o700)
        self._launch(name, name, self._alone(name, command), self.environment(name))

    def kill(self, name: str) -> None:
        """Kill -9 the worker of a machine."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def start(self, name: str, *words: str | Path) -> "subprocess.Popen[str]":
        """Type a command of ours at a machine."""
        command = [COMMAND, *map(str, words)]
        return subprocess.Popen(
            self._alone(name, command),
            env=self.environment(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, name: str, *words: str | Path) -> str:
        """Type a command at a machine to its end; return what it printed."""
        process = self.start(name, *words)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def approve(self, name: str, workload: str) -> str:
        """Approve at a machine what waits for a workload's answer."""
        evidence = evidence_waiting(self.run(name, "pending"), workload)
        return self.run(name, "approve", workload, "--evidence", evidence, "--as", "ann")

    def python(self, name: str, code: str) -> None:
        """Run a program at a machine, as one of its workers would."""
        command = self._alone(name, [sys.executable, "-c", code])
        subprocess.run(command, env=self.environment(name), check=True, capture_output=True)

    def require(self, name: str, claim: Callable[[], bool]) -> None:
        """Wait until something is so, while a process of a name runs."""
        while not claim():
            assert self.running[name].poll() is None, self.log(name)
            time.sleep(0.2)

    def log(self, name: str) -> str:
        """The end of what a process has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-6000:]

    def stop(self) -> None:
        """End everything."""
        for process in self.running.values():
            if process.poll() is not None:  # else that would hide why
                continue
            children = psutil.Process(process.pid).children(recursive=True)
            for each in [psutil.Process(process.pid), *children]:
                if each.is_running():
                    each.send_signal(signal.SIGKILL)
            process.wait()

    def _alone(self, name: str, command: list[str]) -> list[str]:
        others = [self.folder / other for other in (SERVERS, *self.names) if other != name]
        hide = " && ".join(f"mount -t tmpfs none {other}" for other in others)
        return ["unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh", *command]

    def _launch(self, where: str, name: str, command: list[str], env: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=env,
                cwd=self.folder / where,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def may_hide_folders() -> bool:
    """Return whether this user may make a mount namespace."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    return os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
