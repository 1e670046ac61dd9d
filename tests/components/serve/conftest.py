"""A gateway and fake engines for a module's tests."""

from collections.abc import Generator

import pytest

from tests.support import gateways
from tests.support.fake_replicas import FakeReplica, fake_replica
from tests.support.gateways import RunningGateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with gateways.running(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def first_process() -> Generator[FakeReplica]:
    with fake_replica() as replica:
        yield replica


@pytest.fixture(scope="module")
def second_process() -> Generator[FakeReplica]:
    with fake_replica() as replica:
        yield replica


@pytest.fixture
def replica(first_process: FakeReplica) -> FakeReplica:
    """A fake engine without adapters and faults."""
    first_process.reset()
    return first_process


@pytest.fixture
def second_replica(second_process: FakeReplica) -> FakeReplica:
    """Another one."""
    second_process.reset()
    return second_process
