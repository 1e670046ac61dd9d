"""What else a shipper does while segments wait: revoked tokens stop in time."""

import socket
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from components.extensions.machines import shared_tokens
from components.extensions.machines.object_store import ObjectStore, StoreError
from components.receive import client_tokens
from components.store import spool
from flows import settings
from flows.machines import spool_shipper
from flows.settings import Settings
from tests.support import buckets, terminal
from tests.support.terminal import Terminal

STORE = ObjectStore("s3://flywheel/team")
ENDED = Event()


class SlowStore(ObjectStore):
    """A store to which an upload takes for ever."""

    def put(self, place: str, path: Path) -> None:
        ENDED.wait(60)


class FullStore(ObjectStore):
    """A store that takes no upload."""

    def put(self, place: str, path: Path) -> None:
        raise OSError("there is no room")


@pytest.fixture
def home(tmp_path: Path) -> Generator[Settings]:
    with buckets.serving():
        home = settings.load({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_STORE": STORE.url})
        writer = spool.Writer(home.spool)
        writer.commit([spool.line("interactions", "shop", b"{}")])
        writer.seal()
        client_tokens.add_token(home.tokens, "shop", now=datetime.now(UTC))
        shared_tokens.synchronize(STORE, home.tokens)
        (token,) = client_tokens.read_tokens(home.tokens)
        shared_tokens.remove(STORE, token.id)  # on another machine
        yield home


def test_a_revoked_token_does_not_wait_for_a_large_segment(home: Settings) -> None:
    is_over, reports = Event(), list[str]()
    ENDED.clear()
    store = SlowStore(STORE.url)
    shipper = Thread(target=spool_shipper.ship_until, args=(home, store, is_over, reports.append))
    shipper.start()
    try:
        deadline = time.monotonic() + 30
        while client_tokens.read_tokens(home.tokens) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client_tokens.read_tokens(home.tokens) == []
    finally:
        is_over.set()
        ENDED.set()
        shipper.join()
    assert reports == []


def test_a_revoked_token_does_not_wait_for_a_segment_that_is_refused(home: Settings) -> None:
    with pytest.raises(StoreError, match="there is no room"):
        spool_shipper.ship_once(home, FullStore(STORE.url))
    assert client_tokens.read_tokens(home.tokens) == []
    assert len(spool.sealed(home.spool)) == 1


def test_a_bucket_that_does_not_exist_is_named_though_nothing_waits(tmp_path: Path) -> None:
    with buckets.serving() as variables:
        env = {**terminal.in_home(tmp_path).env, **variables}
        shell = Terminal(env | {"FLYWHEEL_STORE": "s3://nonesuch/team"}, is_forked=True)
        shipped = shell.run("ship", "--once")
    assert (shipped.returncode, shipped.stdout) == (1, "")
    assert "there is no bucket nonesuch at http://127.0.0.1:" in shipped.stderr
    assert "create it, or name another" in shipped.stderr


@pytest.mark.slow
def test_a_server_that_takes_connections_and_never_answers_is_named_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {**terminal.in_home(tmp_path).env, **buckets.variables(address)}
        env |= {"FLYWHEEL_STORE": STORE.url, "AWS_MAX_ATTEMPTS": "1"}  # by default three
        began = time.monotonic()
        shipped = Terminal(env).run("ship", "--once")
    assert shipped.returncode == 1
    assert f'Read timeout on endpoint URL: "{address}/flywheel' in shipped.stderr
    assert time.monotonic() - began < 60
