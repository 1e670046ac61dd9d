from collections.abc import Generator
from pathlib import Path

import pytest

from components.store import warehouse
from components.store.warehouse import Connection


@pytest.fixture
def con(tmp_path: Path) -> Generator[Connection]:
    """A warehouse of the test's own."""
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        yield con
