"""No request holds the receiver up."""

import gzip
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.benchmarks.crowd import Crowd
from tests.support import attacks, receivers
from tests.support.receivers import Receiver

MIB = 2**20
SECONDS = 4
MAX_P99 = 150.0
NOISE = 3
"""On a machine that does something else, too, others may wait so many times as long as those of a
receiver beside the attacked one."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    with receivers.running(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


def test_gzip_of_many_empty_members_is_refused_at_once(receiver: Receiver):
    member = gzip.compress(b"")
    packed = member * (4 * MIB // len(member))
    began = time.monotonic()
    answer = receiver.post("/v1/interactions", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "the body has more than 512 gzip members, expected one"}
    assert time.monotonic() - began < 5  # 40 s before


def test_a_body_of_several_gzip_members_is_unpacked(receiver: Receiver):
    line = b'{"timestamp":1,"workload_id":"w","request":{"messages":[]},"response":{}}\n'
    packed = b"".join(gzip.compress(line * 2000) for _ in range(4))
    answer = receiver.post("/v1/interactions", content=packed, headers={"content-encoding": "gzip"})
    assert answer.json() == {"accepted": 8000}


@pytest.mark.slow
@pytest.mark.parametrize("name", attacks.REQUESTS)
def test_what_one_client_sends_delays_no_other(receiver: Receiver, tmp_path: Path, name: str):
    crowd, size = Crowd(receiver), 16 * MIB - 4096
    with receivers.running(tmp_path) as elsewhere:
        beside, _ = crowd.send_under_attack(elsewhere, name, size, SECONDS)
    attacked, attack = crowd.send_under_attack(receiver, name, size, SECONDS)
    assert attack.count > 0
    assert attacked.refused == 0
    assert attacked.p99 < max(MAX_P99, NOISE * beside.p99), (beside.p99, attack)
