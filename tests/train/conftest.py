"""What the tests of training have in common."""

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny base; nobody writes into it."""
    return tiny.build(tmp_path_factory.mktemp("base"))
