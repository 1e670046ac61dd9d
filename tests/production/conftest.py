"""One topology for all, and the terminals of who runs it and of one of its users."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.production import topology
from tests.production.composed import BIN
from tests.production.topology import Topology
from tests.support.terminal import Terminal


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """All of its services, up."""
    with topology.up(tmp_path_factory.mktemp("production")) as found:
        yield found


@pytest.fixture(scope="session")
def terminal(production: Topology) -> Terminal:
    """The operator's shell, among the containers: it has the workers' credentials."""
    return Terminal(
        {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(production.folder),
            "OMP_NUM_THREADS": "1",
            "FLYWHEEL_HOME": str(production.home),
            "PREFECT_API_URL": f"{production.inside('internal')}/api",
            "PREFECT_API_AUTH_STRING": production.secrets["PREFECT_AUTH_STRING"],
            "MLFLOW_TRACKING_URI": production.inside("mlflow"),
            "MLFLOW_TRACKING_USERNAME": "flywheel",
            "MLFLOW_TRACKING_PASSWORD": production.secrets["MLFLOW_PASSWORD"],
        }
    )


@pytest.fixture(scope="session")
def account(terminal: Terminal) -> tuple[str, str]:
    """A person's own account, which the operator made."""
    made = terminal.run("account", "ann")
    assert made.returncode == 0, made.stderr
    return "ann", made.stdout.strip()


@pytest.fixture(scope="session")
def person(production: Topology, terminal: Terminal, account: tuple[str, str]) -> Terminal:
    """A person's shell as ``infra/team.md`` sets it up, with their account and nothing else."""
    authority = str(production.authority)
    user, password = account
    own = {
        "PREFECT_API_URL": f"{production.public('prefect')}/api",
        "PREFECT_API_AUTH_STRING": f"{user}:{password}",
        "MLFLOW_TRACKING_URI": production.public("mlflow"),
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
        "SSL_CERT_FILE": authority,
        "REQUESTS_CA_BUNDLE": authority,
    }
    return Terminal(terminal.env | own)


@pytest.fixture(scope="session")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's workload files lie."""
    return tmp_path_factory.mktemp("workloads")
