"""An S3 server with one bucket, in a process of its own, configured as users do."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from s3fs import S3FileSystem

from components.store import manifest

NAME = "flywheel"
VERSIONED = "versioned"

FORGETFUL = """
from moto.s3.responses import S3Response
put = S3Response.put_object
def put_anyway(self):
    self.headers = {k: v for k, v in self.headers.items() if k.lower() != "if-none-match"}
    return put(self)
S3Response.put_object = put_anyway
"""
"""A store that overwrites what is there, whatever the condition."""


def variables(port: int) -> dict[str, str]:
    """The variables with which a process reaches the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def serving(*, forgetful: bool = False) -> Generator[Mapping[str, str]]:
    """Run a server with a bucket; yield the variables, which this process has meanwhile, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    code = FORGETFUL + serve if forgetful else serve
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    before = os.environ.copy()
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        assert process.poll() is None, "the S3 server ended"
        os.environ.update(variables(port))
        S3FileSystem.clear_instance_cache()  # one of another test has its server
        S3FileSystem().mkdir(NAME)
        yield variables(port)
    finally:
        process.terminate()
        process.wait()
        os.environ.clear()
        os.environ.update(before)
        S3FileSystem.clear_instance_cache()


def emptied(place: str = "flywheel/team") -> S3FileSystem:
    """Delete what an earlier test left below a place; give the file system."""
    system = S3FileSystem(use_listings_cache=False)
    if system.exists(place):
        system.rm(place, recursive=True)
    return system


@contextmanager
def serving_versions() -> Generator[str]:
    """Run a server that has a bucket with versions of its objects, too; yield its name."""
    with serving():
        system = S3FileSystem()
        system.mkdir(VERSIONED)
        versioning = {"Status": "Enabled"}
        system.call_s3(
            "put_bucket_versioning", Bucket=VERSIONED, VersioningConfiguration=versioning
        )
        yield VERSIONED


def finish_output(home: Path, content: str = "one", key: str = "0123") -> Path:
    """Finish an adapter of three files in a home."""
    folder = home / "adapters" / "shop%20a" / key
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    for name in ("weights", "deep/config", "empty"):
        (folder / name).write_text("" if name == "empty" else f"{content} {name}")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    manifest.write(folder, kind="adapter", now=now, body={"snapshot": content})
    return folder
