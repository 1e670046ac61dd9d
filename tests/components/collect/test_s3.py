"""Logs in a bucket of an S3 server."""

import gzip
import json
from collections.abc import Generator

import pytest
from fsspec.core import url_to_fs
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from components.collect import places
from components.collect.load_file import Loaded
from components.collect.source import Input
from components.store.warehouse import Connection
from tests.support import buckets, logs


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """Run a server with one bucket, configured by environment variables as users do."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()  # one that was asked before has no key
    url_to_fs("s3://logs")[0].mkdir("logs")
    yield "s3://logs"
    server.stop()
    S3FileSystem.clear_instance_cache()


def put(url: str, *numbers: int) -> None:
    """Upload a log, compressed by its name, without the file system cache of fsspec."""
    import boto3

    lines = [logs.interaction(f"Question {n}?", response_id=f"r{n}") for n in numbers]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    body = gzip.compress(content) if url.endswith(".gz") else content
    name, _, key = url.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=name, Key=key, Body=body)


def collect(con: Connection, pattern: str) -> list[Loaded]:
    return [
        logs.load_input(con, Input(place), now=logs.NOW) for place in places.matching_files(pattern)
    ]


def counts(loaded: list[Loaded]) -> list[tuple[str, int, int, bool]]:
    return [(file.path.name, file.new, file.known, file.skipped) for file in loaded]


def test_a_bucket_is_collected_by_folder_and_by_glob_and_only_what_is_new(
    con: Connection, bucket: str
):
    put(f"{bucket}/app/2026/a.jsonl", 1, 2)
    put(f"{bucket}/app/2026/b.jsonl.gz", 2, 3)
    assert counts(collect(con, f"{bucket}/app")) == [
        ("a.jsonl", 2, 0, False),
        ("b.jsonl.gz", 1, 1, False),
    ]
    put(f"{bucket}/app/2026/a.jsonl", 1, 2, 4)
    put(f"{bucket}/app/2026/c.jsonl", 5)
    assert counts(collect(con, f"{bucket}/app/*/*.jsonl*")) == [
        ("a.jsonl", 1, 0, False),
        ("b.jsonl.gz", 0, 2, True),
        ("c.jsonl", 1, 0, False),
    ]
    assert collect(con, f"{bucket}/nothing/*") == []


def test_a_bucket_that_does_not_exist_is_no_empty_one():
    with buckets.serving():
        for glob in ("*.jsonl", "app/*.jsonl", "app/**"):
            with pytest.raises(places.UnreadableError, match="bucket does not exist"):
                places.matching_files(f"s3://renamed/{glob}")
            assert places.matching_files(f"s3://{buckets.NAME}/{glob}") == []


def test_an_unreachable_bucket_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch):
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # one of another test has its credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(places.UnreachableError, match=r"^reaching s3://nobody/\*\.json: ."):
        places.matching_files("s3://nobody/*.json")
