"""A home and free ports for each test; nothing of a test's stack outlives it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.settings import HOST, Settings
from flows.stack import control

MODULES = Path(__file__).parent / "modules"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a new home; whatever is still running there at the end is ended."""
    yield from new_settings(tmp_path)


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of one home for a whole file."""
    yield from new_settings(tmp_path_factory.mktemp("stack"))


def new_settings(folder: Path) -> Iterator[Settings]:
    """Choose a home and free ports, and take down at the end what runs there."""
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    settings = Settings(home=folder / "home", prefect_port=ports[0], mlflow_port=ports[1])
    yield settings
    control.down(settings)


@pytest.fixture(autouse=True)
def importable_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stack's processes import the tiny flows."""
    paths = [str(MODULES), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("FLYWHEEL_FLOWS", "flows,tiny_flows")
