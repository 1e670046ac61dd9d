"""A warehouse for the tests of decisions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.store.warehouse import Connection
from tests.support import warehouses


@pytest.fixture
def con(tmp_path: Path) -> Iterator[Connection]:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        yield con
