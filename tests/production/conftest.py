"""One topology for all, and a terminal that knows of it what its users do."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.terminal import Terminal
from tests.production import topology
from tests.production.composed import BIN
from tests.production.topology import Topology


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """All of its services, up."""
    with topology.up(tmp_path_factory.mktemp("production")) as found:
        yield found


@pytest.fixture(scope="session")
def terminal(production: Topology) -> Terminal:
    """A person's shell as ``infra/README.md`` sets it up, with credentials in its environment."""
    authority = str(production.authority)
    return Terminal(
        {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(production.folder),
            "OMP_NUM_THREADS": "1",
            "FLYWHEEL_HOME": str(production.home),
            "PREFECT_API_URL": f"{production.public('prefect')}/api",
            "PREFECT_API_AUTH_STRING": production.secrets["PREFECT_AUTH_STRING"],
            "MLFLOW_TRACKING_URI": production.public("mlflow"),
            "MLFLOW_TRACKING_USERNAME": "flywheel",
            "MLFLOW_TRACKING_PASSWORD": production.secrets["MLFLOW_PASSWORD"],
            "SSL_CERT_FILE": authority,
            "REQUESTS_CA_BUNDLE": authority,
        }
    )


@pytest.fixture(scope="session")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's workload files lie."""
    return tmp_path_factory.mktemp("workloads")
