"""The services of ``infra/compose.yaml`` as processes: Debian's PostgreSQL, Redis and Caddy, ours.

Commands and environments are the file's own (``tests.production.composed``). What differs is said
here: the addresses, the programs whose images are others' (PostgreSQL is set up by the same
``postgres.sh``), and the object store, for which moto's S3 server stands in: no package has
SeaweedFS.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from flows.stack import processes
from tests.production import composed
from tests.production.composed import INFRA

HOST = "127.0.0.1"
MARK = "FLYWHEEL_TOPOLOGY"
"""Each process is started with it, and so found again when the topology is taken down."""

PORTS = {
    "postgres:5432": "postgres",
    "redis:6379": "redis",
    "objects:8333": "objects",
    "mlflow:5000": "mlflow",
    "prefect-api-1:4200": "prefect-api-1",
    "prefect-api-2:4200": "prefect-api-2",
    "proxy:8080": "internal",
    "receiver:4318": "receiver",
}
"""The name here of the port that stands for each address of the file."""


@dataclass(slots=True)
class Topology:
    """All of its processes, by the names of the file's services."""

    folder: Path
    secrets: dict[str, str]
    ports: dict[str, int]
    services: dict[str, dict[str, object]] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The volume that receiver and workers share."""
        return self.folder / "home"

    @property
    def authority(self) -> Path:
        """The certificate of the proxy's own authority, which clients must be told."""
        return self.folder / "caddy/pki/authorities/local/root.crt"

    def public(self, name: str) -> str:
        """Give the address of one of the proxy's sites: ``prefect``, ``mlflow``, ``receiver``."""
        return f"https://localhost:{self.ports[f'public-{name}']}"

    def inside(self, name: str) -> str:
        """Give an address that only the containers reach: ``internal`` (Prefect), ``mlflow``."""
        return f"http://{HOST}:{self.ports[name]}"

    def start(self, name: str) -> None:
        """Start a service, or start it again after it was killed."""
        program = composed.program(
            self.services, name, self._addresses(), self.folder, self._changed(name)
        )
        self._launch(name, list(program.command), program.env)

    def once(self, name: str) -> None:
        """Run a service that ends by itself.

        Raises:
            AssertionError: It did not end well.
        """
        self.start(name)
        code = self.running.pop(name).wait(180)
        assert code == 0, f"{name} ended with {code}: {self.log(name)}"

    def kill(self, name: str) -> None:
        """End a service's process without notice."""
        killed = self.running.pop(name)
        killed.kill()
        killed.wait()

    def log(self, name: str) -> str:
        """Read what a service has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def require(self, claim: Callable[[], bool], what: str, seconds: float = 120) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: It is not so in time, or a service has ended meanwhile.
        """
        deadline = time.monotonic() + seconds
        while not claim():
            ended = [name for name, each in self.running.items() if each.poll() is not None]
            assert not ended, f"{ended} ended while waiting: {self.log(ended[0])}"
            assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
            time.sleep(0.2)

    def _launch(self, name: str, command: list[str], env: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                processes.dying_with_parent(command, "KILL"),
                env={**env, MARK: str(self.folder)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def launch_postgres(self, data: Path) -> None:
        """Make an empty database server, start it and run the file's script on it."""
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        password = data / "password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        if as_user:
            for path in (data, password):
                shutil.chown(path, "postgres")
        made = [
            programs / "initdb",
            "-D",
            data / "cluster",
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
        ]
        subprocess.run([*as_user, *made, f"--pwfile={password}"], check=True, capture_output=True)
        given = ["-c", f"listen_addresses={HOST}", "-c", f"unix_socket_directories={data}"]
        serve = [
            programs / "postgres",
            "-D",
            data / "cluster",
            "-p",
            self.ports["postgres"],
            *given,
        ]
        env = {"PATH": os.environ["PATH"]}
        self._launch("postgres", [*map(str, as_user), *map(str, serve)], env)
        said = self.services["postgres"]["environment"]
        assert isinstance(said, dict)
        there = {"PGHOST": HOST, "PGPORT": str(self.ports["postgres"])}
        owner = env | {str(key): str(value) for key, value in said.items()} | there
        owner["PGPASSWORD"] = self.secrets["POSTGRES_PASSWORD"]
        ready = ["pg_isready", "--quiet"]
        self.require(lambda: subprocess.run(ready, env=owner).returncode == 0, "PostgreSQL")
        subprocess.run([INFRA / "postgres.sh"], env=owner, check=True)

    def launch_objects(self) -> None:
        """Start what stands in for the object store."""
        serve = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.ports["objects"])]
        self._launch("objects", serve, {"PATH": os.environ["PATH"]})

    def launch_proxy(self) -> None:
        """Start Caddy on the file's own configuration."""
        program = composed.program(
            self.services, "proxy", self._addresses(), self.folder, self._changed("proxy")
        )
        run = ["caddy", "run", "--config", str(INFRA / "Caddyfile"), "--adapter", "caddyfile"]
        self._launch("proxy", run, program.env | {"XDG_DATA_HOME": str(self.folder)})

    def answers(self, port: str, path: str) -> bool:
        """Tell whether a server answers 200 on the loopback."""
        with suppress(httpx.TransportError):
            url = f"http://{HOST}:{self.ports[port]}{path}"
            return httpx.get(url, trust_env=False, timeout=5).status_code == 200
        return False

    def _addresses(self) -> dict[str, str]:
        return {address: f"{HOST}:{self.ports[name]}" for address, name in PORTS.items()}

    def _changed(self, name: str) -> dict[str, str]:
        """Say which variables can't be what they are among containers."""
        port = {key: str(value) for key, value in self.ports.items()}
        if name.startswith("prefect-"):
            return {
                "PREFECT_SERVER_DATABASE_HOST": HOST,
                "PREFECT_SERVER_DATABASE_PORT": port["postgres"],
                "PREFECT_REDIS_MESSAGING_HOST": HOST,
                "PREFECT_REDIS_MESSAGING_PORT": port["redis"],
                "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_HOST": HOST,
                "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": port["redis"],
            }
        if name in {"mlflow", "mlflow-database"}:
            return {"PGHOST": HOST, "PGPORT": port["postgres"]}
        if name == "proxy":
            return {"HTTP_PORT": port["http"], "INTERNAL_PORT": port["internal"]}
        return {}


@contextmanager
def up(folder: Path) -> Generator[Topology]:
    """Bring all of it up in the order that the file's dependencies give, and take it down."""
    names = [*PORTS.values(), "http", "public-prefect", "public-mlflow", "public-receiver"]
    found = Topology(
        folder, composed.secrets(), dict(zip(names, _free_ports(len(names)), strict=True))
    )
    public = {
        f"{name.upper()}_PORT": str(found.ports[f"public-{name}"])
        for name in ("prefect", "mlflow", "receiver")
    }
    found.services = composed.services(found.secrets | public)
    data = Path(tempfile.mkdtemp(prefix="flywheel-postgres-"))  # its user can't enter pytest's
    try:
        _start_all(found, data)
        yield found
    finally:
        processes.end_processes(processes.marked_processes(MARK, str(folder)), grace=5.0)
        for each in found.running.values():  # Redis writes over the mark
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
        shutil.rmtree(data)


def _start_all(found: Topology, data: Path) -> None:
    found.home.mkdir()
    found.launch_postgres(data)
    found.start("redis")
    found.launch_objects()
    found.require(lambda: found.answers("objects", "/moto-api/"), "the object store")
    found.once("bucket")
    found.once("prefect-database")
    found.once("mlflow-database")
    found.launch_proxy()
    found.start("mlflow")
    for name in ("prefect-api-1", "prefect-api-2"):
        found.start(name)
        found.require(lambda name=name: found.answers(name, "/api/health"), name)
    found.start("prefect-services")
    found.require(lambda: found.answers("mlflow", "/health"), "MLflow")
    found.require(lambda: found.answers("internal", "/api/health"), "the proxy")
    found.once("deploy")
    for name in ("receiver", "worker-cpu", "worker-gpu-on-cpu"):
        found.start(name)
    found.require(lambda: found.answers("receiver", "/healthz"), "the receiver")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
