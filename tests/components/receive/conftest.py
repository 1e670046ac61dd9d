"""Receivers for a module's tests, or for one test."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support import receivers
from tests.support.receivers import Receiver


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    with receivers.running(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Generator[Receiver]:
    with receivers.running(tmp_path) as receiver:
        yield receiver
