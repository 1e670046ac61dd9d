"""No request holds the receiver up."""

import gzip
import time
from collections.abc import Generator

import pytest

from tests.receive import receivers
from tests.receive.receivers import Receiver

MIB = 2**20


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
    assert answer.json() == {"detail": "the body has more than 512 gzip members, wants one"}
    assert time.monotonic() - began < 5  # 40 s before


def test_a_body_of_several_gzip_members_is_unpacked(receiver: Receiver):
    line = b'{"timestamp":1,"workload_id":"w","request":{},"response":{}}\n'
    packed = b"".join(gzip.compress(line * 2000) for _ in range(4))
    answer = receiver.post("/v1/interactions", content=packed, headers={"content-encoding": "gzip"})
    assert answer.json() == {"accepted": 8000}
