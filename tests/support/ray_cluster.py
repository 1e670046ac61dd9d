"""A Ray cluster of real nodes on loopback addresses, in a network namespace of its own.

Ray listens on all interfaces, and takes 127.0.0.1 for another name of the machine's own address.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
HEAD = "127.0.0.2"
ADDRESS = f"ray://{HEAD}:10001"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5eed" * 16}
PATIENT = {
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "600",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "60",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "60",
    "RAY_worker_register_timeout_seconds": "600",
}
"""A process takes minutes to start where others want the cores."""


class Cluster:
    """A namespace, and the nodes that were started in it, by their addresses."""

    def __init__(self, folder: Path) -> None:
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = folder
        alone = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        idle = "ip link set lo up && echo && exec sleep infinity"
        separated = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self._holder = subprocess.Popen(
            ["unshare", *alone, *separated, "sh", "-c", idle], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline(), "no namespace"

    def start(self, *command: str, env: Mapping[str, str] = TOKEN) -> subprocess.Popen[bytes]:
        """Start a command of this Python in the namespace."""
        (inside,) = psutil.Process(self._holder.pid).children()
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(inside.pid), *user, "--net", "--pid", "--mount"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        always = {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(self.folder)}
        # The head forks, and while others call gRPC its handlers abort the new process.
        always["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        return subprocess.Popen(
            [*enter, sys.executable, *command],
            env={**clean, **always, **PATIENT, **env},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def start_node(self, address: str, *, cores: int = 1, env: Mapping[str, str] = TOKEN) -> None:
        """Start a node, the head if it has its address, and wait until the cluster knows it."""
        role = [f"--address={HEAD}:6399"]
        if address == HEAD:
            role = ["--head", "--port=6399", "--ray-client-server-port=10001"]
            role += ["--include-dashboard=false"]
        place = [f"--node-ip-address={address}", f"--num-cpus={cores}", "--block"]
        store = ["--object-store-memory=200000000", "--disable-usage-stats"]
        command = ["-m", "tests.support.ray_start", "start", *role, *place, *store]
        node = self.nodes[address] = self.start(*command, env=env)
        assert node.stdout is not None
        printed: list[bytes] = []
        while b"Ray runtime started" not in (line := node.stdout.readline()):
            printed.append(line)
            assert line, f"node {address} ended: {b''.join(printed).decode()}"

    def processes(self, address: str) -> list[psutil.Process]:
        """List the processes of a node."""
        return psutil.Process(self.nodes[address].pid).children(recursive=True)

    def kill_node(self, address: str) -> None:
        """Kill all of a node at once, as a machine that loses its power."""
        for process in self.processes(address):
            process.kill()
        self.nodes.pop(address).wait()

    def stop(self) -> None:
        """Kill all that runs in the namespace."""
        for process in psutil.Process(self._holder.pid).children():
            process.kill()  # it is the namespace's first, so that all others end with it
        self._holder.wait()


@contextmanager
def started(*addresses: str, env: Mapping[str, str] = TOKEN) -> Generator[Cluster]:
    """Start a head of one core, and nodes of one core at these addresses."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: the paths of sockets have a limit
    cluster = Cluster(folder)
    try:
        for address in (HEAD, *addresses):
            cluster.start_node(address, env=env)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
