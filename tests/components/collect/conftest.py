from collections.abc import Generator
from pathlib import Path

import pytest

from components.store.warehouse import Connection
from tests.support import warehouses


@pytest.fixture
def con(tmp_path: Path) -> Generator[Connection]:
    """A warehouse of the test's own."""
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        yield con
