"""A gateway for a module's tests."""

from collections.abc import Generator

import pytest

from tests.support import gateways
from tests.support.gateways import RunningGateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with gateways.running(tmp_path_factory.mktemp("gateway")) as running:
        yield running
