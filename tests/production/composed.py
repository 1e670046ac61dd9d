"""What ``infra/compose.yaml`` starts, as Docker Compose reads it, on this machine's ports."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Program:
    """One service of the file, as a process: its command and its whole environment."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str]


def secrets() -> dict[str, str]:
    """Make new secrets, as the file's own script does."""
    made = subprocess.run([INFRA / "secrets.sh"], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in made.stdout.splitlines())


def services(settings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read all services, whatever their profile, with every variable filled in.

    Raises:
        subprocess.CalledProcessError: Docker Compose finds the file wrong.
    """
    command = ["docker-compose", "--file", INFRA / "compose.yaml", "--env-file", os.devnull]
    command += ["--profile", "*", "config", "--format", "json"]
    env = {"PATH": os.environ["PATH"], **settings, "COMPOSE_PROFILES": "cpu,cuda"}
    read = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(read.stdout)["services"]


def program(
    services: Mapping[str, Mapping[str, Any]],
    name: str,
    addresses: Mapping[str, str],
    folder: Path,
    changed: Mapping[str, str],
) -> Program:
    """Turn a service into a process of this machine.

    Args:
        services: All of the file's.
        name: Which one.
        addresses: For each ``service:port`` of the file, the ``host:port`` that stands for it here.
        folder: Stands for the containers' own disks.
        changed: Variables that must say something else here.
    """
    service = services[name]
    places = {
        "/srv/flywheel": str(folder / "home"),
        "/tmp/prefect": str(folder / f"prefect-{name}"),
        "/opt/flywheel": str(ROOT),
    }
    swaps = {rf"\b{re.escape(one)}\b": there for one, there in addresses.items()}
    swaps |= {rf"^{re.escape(one)}": there for one, there in places.items()}
    for address, there in addresses.items():
        if address.startswith(f"{name}:"):  # where it listens itself
            host, port = there.split(":")
            swaps |= {r"^0\.0\.0\.0$": host, rf"^{address.split(':')[1]}$": port}

    def here(text: str) -> str:
        for pattern, there in swaps.items():
            text = re.sub(pattern, there, text)
        return text.replace("$$", "$")

    said = service.get("environment") or {}
    env = {key: here(str(value)) for key, value in said.items()} | dict(changed)
    inherited = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return Program(name, tuple(map(here, service["command"])), inherited | env)
