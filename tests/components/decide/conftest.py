"""A warehouse for the tests of decisions."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import warehouses


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decide") / "warehouse.duckdb"
    with warehouse.connect(path):
        return path


@pytest.fixture
def con(empty: Path, tmp_path: Path) -> Iterator[Connection]:
    if warehouses.ON_LAKE:
        with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
            yield con
        return
    with warehouse.connect(Path(shutil.copy(empty, tmp_path))) as con:
        yield con
