"""An S3 server with one bucket, in a process of its own, configured as users do."""

import logging
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from botocore.loaders import JSONFileLoader
from s3fs import S3FileSystem

from components.extensions.machines import lake_connection
from components.store import manifest
from tests.support import forking
from tests.support.forking import Ready

NAME = "flywheel"
VERSIONED = "versioned"

_load_once = cache(JSONFileLoader().load_file)  # of S3 a megabyte, which each new client would read
JSONFileLoader.load_file = lambda _, path: _load_once(path)  # pyright: ignore

UNREACHABLE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
"""Where no store is; it is tried once, as botocore's attempts take eight seconds."""


Closed: TypeAlias = Sequence[tuple[str, str]]
"""What a server refuses: methods of HTTP (or LIST), each with the beginning of keys."""


REFUSED = (403, {}, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")


def serve(ready: Ready, *, forgetful: bool, closed: Closed) -> None:
    """Listen on a free port, say the URL, and serve until it is killed.

    A forgetful store overwrites what is there, whatever the condition. Objects are as old as
    ``aged`` makes them.
    """
    from moto.s3.models import FakeKey
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    if forgetful:
        put = S3Response.put_object

        def put_anyway(self: S3Response) -> Any:
            headers = self.headers.items()
            self.headers = {k: v for k, v in headers if k.lower() != "if-none-match"}
            return put(self)

        S3Response.put_object = put_anyway
    of_key, of_bucket = S3Response.key_response, S3Response.bucket_response

    def is_refused(method: str, key: str) -> bool:
        return any(method == each and key.startswith(prefix) for each, prefix in closed)

    def on_key(self: S3Response, request: Any, full_url: str, headers: Any) -> Any:
        key = urlsplit(full_url).path.split("/", 2)[2]
        if is_refused(request.method, key):
            return REFUSED
        return of_key(self, request, full_url, headers)

    def on_bucket(self: S3Response, request: Any, full_url: str, headers: Any) -> Any:
        if is_refused("LIST", dict(parse_qsl(urlsplit(full_url).query)).get("prefix", "")):
            return REFUSED
        return of_bucket(self, request, full_url, headers)

    S3Response.key_response, S3Response.bucket_response = on_key, on_bucket
    set_metadata = FakeKey.set_metadata

    def set_age(self: FakeKey, metadata: dict[str, Any], replace: bool = False) -> None:
        set_metadata(self, metadata, replace)
        if (age := metadata.get("x-amz-meta-age")) is not None:
            self.last_modified -= timedelta(seconds=float(age))

    FakeKey.set_metadata = set_age
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it says each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ready(f"http://{host}:{port}")
    Event().wait()


def variables(url: str) -> dict[str, str]:
    """The variables with which a process reaches the server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def serving(*, forgetful: bool = False, closed: Closed = ()) -> Generator[Mapping[str, str]]:
    """Run a server with a bucket; yield the variables, which this process has meanwhile, too."""
    before = os.environ.copy()
    with forking.server(True, serve, forgetful=forgetful, closed=closed) as (_, url):
        try:
            os.environ.update(variables(url))
            forget()
            S3FileSystem().mkdir(NAME)
            yield variables(url)
        finally:
            os.environ.clear()
            os.environ.update(before)
            forget()


def forget() -> None:
    """Drop this process's clients, which ask the server of another test."""
    S3FileSystem.clear_instance_cache()
    lake_connection.aws.cache_clear()


@contextmanager
def cutting() -> Generator[None]:
    """Run a server whose answers end before all of an object has come."""

    class Handler(BaseHTTPRequestHandler):
        def cut(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(b"the first bytes" if self.command == "GET" else b"")

        do_GET = do_HEAD = cut  # noqa: N815 - as http.server names them

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with _answering(Handler):
        yield


@contextmanager
def _answering(handler: type[BaseHTTPRequestHandler]) -> Generator[None]:
    before = os.environ.copy()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            os.environ.update(variables(f"http://127.0.0.1:{server.server_port}"))
            S3FileSystem.clear_instance_cache()
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            S3FileSystem.clear_instance_cache()
            server.shutdown()
            thread.join()


@contextmanager
def seen_by_a_clock_behind(seconds: float) -> Generator[None]:
    """Let this process see the store's clock that far ahead of its own."""
    store = os.environ["AWS_ENDPOINT_URL"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else clients wait for leave to send what they have

        def pass_on(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            asked = httpx.request(
                self.command,
                store + self.path,
                content=self.rfile.read(length),
                headers={
                    name: text
                    for name, text in self.headers.items()
                    if name.lower() not in {"host", "expect"}
                },
                trust_env=False,
            )
            self.send_response_only(asked.status_code)
            for name, text in asked.headers.items():
                if name not in {"date", "connection", "transfer-encoding"}:
                    self.send_header(name, text)
            self.send_header("date", format_datetime(datetime.now(UTC) + ahead, usegmt=True))
            self.end_headers()
            self.wfile.write(asked.content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815 - as above

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    ahead = timedelta(seconds=seconds)
    with _answering(Handler):
        yield


def take_away(patch: pytest.MonkeyPatch) -> None:
    """Let no store answer, until the patch is undone and the cache of file systems is cleared."""
    for name, value in UNREACHABLE.items():
        patch.setenv(name, value)
    S3FileSystem.clear_instance_cache()


def aged(path: str, seconds: float) -> None:
    """Let an object have been written that long ago, by the server's clock."""
    system = S3FileSystem(use_listings_cache=False)
    system.pipe_file(path, system.cat_file(path), Metadata={"age": str(seconds)})


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
