"""A home with a base, a snapshot and an adapter that was finished as a training finishes it."""

from pathlib import Path

import pytest

from tests.support import adapter_folders, tiny
from tests.support.adapter_folders import Making


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_folders.snapshot(tmp_path_factory.mktemp("snapshots") / "5af1")


@pytest.fixture
def make(tiny_base: Path, snapshot: Path, tmp_path: Path) -> Making:
    """Make a finished adapter in a home of the test's own."""

    def make(key: str = "ada9", **knobs: object) -> Path:
        folder = tmp_path / "home" / "adapters" / "tools" / key
        return adapter_folders.adapter(tiny_base, snapshot, folder, **knobs)  # pyright: ignore[reportArgumentType]

    return make
