"""Tokens that receivers on several machines share through an object store."""

import json
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner

from components.extensions.machines import shared_tokens
from components.extensions.machines.object_store import ObjectStore
from components.receive import client_tokens
from components.receive.client_tokens import TokenError
from flows.cli.main import app
from tests.support import buckets

STORE = ObjectStore("s3://flywheel/team")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def files(tmp_path: Path, server: None) -> tuple[Path, Path]:
    buckets.emptied()
    first, second = tmp_path / "a" / "tokens.json", tmp_path / "b" / "tokens.json"
    first.parent.mkdir()
    second.parent.mkdir()
    return first, second


def clients(file: Path) -> set[str]:
    return {token.client_id for token in client_tokens.read_tokens(file)}


def synchronize(*files: Path) -> None:
    for file in files:
        shared_tokens.synchronize(STORE, file)


def test_tokens_of_two_machines_are_known_at_both(files: tuple[Path, Path]) -> None:
    first, second = files
    token = client_tokens.add_token(first, "shop", now=NOW, workloads=["support*"])
    client_tokens.add_token(second, "app", now=NOW)
    synchronize(first, second, first)
    assert clients(first) == clients(second) == {"shop", "app"}
    there = client_tokens.TokenFile(second).find(f"Bearer {token}")
    assert there is not None and there.workloads == ("support*",)
    assert second.stat().st_mode & 0o777 == 0o600


def test_a_token_that_was_removed_is_removed_everywhere_and_stays_so(
    files: tuple[Path, Path],
) -> None:
    first, second = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first, second)
    (token,) = client_tokens.read_tokens(second)
    shared_tokens.remove(STORE, token.id)
    synchronize(first, second, first)
    assert clients(first) == clients(second) == set()


def test_a_token_that_is_removed_during_a_look_does_not_come_back(
    files: tuple[Path, Path],
) -> None:
    first, _ = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first)
    (token,) = client_tokens.read_tokens(first)

    def remove() -> None:
        shared_tokens.remove(STORE, token.id)
        client_tokens.remove_token(first, token.id)

    removal = Thread(target=remove)

    class SlowStore(ObjectStore):
        def sizes(self, place: str) -> dict[str, int]:
            sizes = super().sizes(place)
            removal.start()
            removal.join(2)  # where the lock is held it goes on later
            return sizes

    shared_tokens.synchronize(SlowStore(STORE.url), first)
    removal.join()
    assert clients(first) == set()


def test_a_bucket_that_was_emptied_takes_nobodys_access_away(files: tuple[Path, Path]) -> None:
    first, second = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first)
    S3FileSystem(use_listings_cache=False).rm("flywheel/team", recursive=True)
    synchronize(first, second)
    assert clients(first) == clients(second) == {"shop"}


@pytest.mark.parametrize("content", [b"", b"no JSON", b'{"id": "other"}', b"\xff\xfe", None])
def test_an_object_that_is_no_token_costs_only_itself(
    files: tuple[Path, Path], content: bytes | None
) -> None:
    first, second = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first)
    (token,) = client_tokens.read_tokens(first)
    record = token.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(record).encode() if content is None else content
    S3FileSystem(use_listings_cache=False).pipe_file("flywheel/team/tokens/0000.json", text)
    with pytest.raises(TokenError, match="0000 can't be read"):
        synchronize(second)
    assert clients(second) == {"shop"}


def test_a_second_look_writes_nothing(files: tuple[Path, Path]) -> None:
    first, _ = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first)
    before = first.stat()
    synchronize(first)
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_object_that_is_no_token_keeps_nobody_from_removing_another(
    files: tuple[Path, Path],
) -> None:
    first, second = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first)
    STORE.write("tokens/0000.json", "no JSON")
    (token,) = client_tokens.read_tokens(first)
    environment = {"FLYWHEEL_HOME": str(first.parent), "FLYWHEEL_STORE": STORE.url}
    done = CliRunner().invoke(app, ["token", "remove", token.id], env=environment)
    assert done.exit_code == 0, done.output
    assert "0000 can't be read" in done.output
    shared_tokens.remove(STORE, "0000")
    synchronize(second)
    assert clients(first) == clients(second) == set()


def test_a_token_is_revoked_though_the_store_is_away_and_does_not_come_back_from_there(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = files
    client_tokens.add_token(first, "shop", now=NOW)
    synchronize(first, second)
    (token,) = client_tokens.read_tokens(first)
    environment = {"FLYWHEEL_HOME": str(first.parent), "FLYWHEEL_STORE": STORE.url}
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        S3FileSystem.clear_instance_cache()
        done = CliRunner().invoke(app, ["token", "remove", token.id], env=environment)
        listed = CliRunner().invoke(app, ["token", "list"], env=environment)
        added = CliRunner().invoke(app, ["token", "add", "late"], env=environment)
    S3FileSystem.clear_instance_cache()
    assert done.exit_code == listed.exit_code == added.exit_code == 1
    assert f"removed {token.id} of shop" in done.output
    assert "will be on others once `flywheel token list` or `flywheel ship`" in done.output
    assert "these are the tokens that this machine knows" in listed.output
    assert "this machine accepts it, and others will once" in added.output
    assert clients(first) == {"late"}
    synchronize(first, second)
    assert clients(first) == clients(second) == {"late"}
