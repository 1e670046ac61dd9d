"""What the tests of training have in common."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny base; nobody writes into it."""
    return tiny.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Say how many threads torch has until the test ends, whatever the machine has."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
