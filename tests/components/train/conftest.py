"""Fixtures of the training tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny base; tests only read it."""
    return tiny.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Return a setter of torch's thread count, which is restored after the test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
