"""PostgreSQL of the tests' own, and lakes on it: a database and a folder each."""

import atexit
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from components.extensions.machines import lake, lake_connection
from components.extensions.machines.lake_warehouse import Lake
from components.store import warehouse

HOST = "127.0.0.1"
IS_ROOT = os.geteuid() == 0  # PostgreSQL refuses to run as root
STARTED = "FLYWHEEL_TEST_POSTGRES"  # the variable with the server's address
TEMPLATE = "empty_lake"


@cache
def server() -> str:
    """Start PostgreSQL on a loopback port until this process ends; return its address.

    Processes that this one starts use it, too.
    """
    if STARTED in os.environ:
        return os.environ[STARTED]
    folder = Path(tempfile.mkdtemp(prefix="flywheel-lake-"))  # its user can't enter pytest's
    as_user = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if IS_ROOT else []
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    if IS_ROOT:
        shutil.chown(folder, "postgres")
    cluster, port = folder / "cluster", _free_port()
    initdb = [
        "setpriv",
        *as_user,
        programs / "initdb",
        "-D",
        cluster,
        "-U",
        "postgres",
        "-A",
        "trust",
    ]
    subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True)
    options = f"listen_addresses={HOST} fsync=off max_connections=300".split()
    named = [part for option in options for part in ("-c", option)]
    serve = [programs / "postgres", "-D", cluster, "-p", str(port), "-k", folder, *named]
    command = ["setpriv", *as_user, "--pdeathsig", "QUIT", *map(str, serve)]
    running = _Running(command, folder / "log")
    atexit.register(running.stop, folder)
    _servers.append(running)
    url = f"postgres://postgres@{HOST}:{port}"
    while True:
        ready = [programs / "pg_isready", "--quiet", "-h", HOST, "-p", str(port)]
        if subprocess.run(ready).returncode == 0:
            os.environ[STARTED] = url
            return url
        assert running.process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)


class _Running:
    """PostgreSQL as a process of this one."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self._start([])

    def _start(self, before: list[str]) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*before, *self._command], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def restart(self, seconds: int) -> None:
        self.process.send_signal(signal.SIGINT)  # ends all sessions
        self.process.wait()
        self._start(["sh", "-c", f'sleep {seconds}; exec "$@"', "sh"])

    def stop(self, folder: Path) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


_servers: list[_Running] = []


def restart_server(seconds: int) -> None:
    """End PostgreSQL with all its sessions, and start it again after some seconds, meanwhile."""
    server()
    (running,) = _servers
    running.restart(seconds)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def execute(sql: str, database: str = "postgres") -> list[Any]:
    """Run a statement in a database of the server; return its rows."""
    with Lake(f"{server()}/{database}", "").session() as session:
        cursor = session.execute(sql)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def bucket(name: str) -> Generator[dict[str, str]]:
    """Run an S3 server with a bucket; yield the variables with which a process reaches it."""
    port = _free_port()
    serve = f"from moto.server import main; main(['-H', '{HOST}', '-p', '{port}'])"
    command, quiet = [sys.executable, "-c", serve], subprocess.DEVNULL
    running = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        while True:
            assert running.poll() is None, "the S3 server ended"
            with suppress(httpx.TransportError):
                httpx.put(f"http://{HOST}:{port}/{name}", trust_env=False).raise_for_status()
                break
            time.sleep(0.1)
        _forget_endpoint()
        yield {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        running.kill()
        running.wait()
        _forget_endpoint()


def _forget_endpoint() -> None:
    from s3fs import S3FileSystem  # takes half a second, and few tests have a bucket

    S3FileSystem.clear_instance_cache()
    lake_connection.aws.cache_clear()


def database(name: str) -> str:
    """Return the address of a new, empty database."""
    execute(f"create database {name}")
    return f"{server()}/{name}"


@cache
def new(path: Path) -> Lake:
    """Return the lake of a path, which begins empty: a folder and a database, made once."""
    name = f"lake_{hashlib.md5(str(path).encode()).hexdigest()[:16]}"
    folder = path.with_suffix("")
    if execute(f"select 1 from pg_database where datname = '{name}'"):
        return Lake(f"{server()}/{name}", str(folder))  # made by the process that started this
    shutil.copytree(_template(), folder, dirs_exist_ok=True)
    execute(f"create database {name} template {TEMPLATE}")
    _point_to(folder, name)
    return Lake(f"{server()}/{name}", str(folder))


def copy(place: Lake, path: Path) -> Lake:
    """Copy a lake that nobody has open to another path; its files are in a folder."""
    name = f"lake_{hashlib.md5(str(path).encode()).hexdigest()[:16]}"
    folder = path.with_suffix("")
    shutil.copytree(place.data, folder)
    execute(f"create database {name} template {place.url.rpartition('/')[2]}")
    _point_to(folder, name)
    return Lake(f"{server()}/{name}", str(folder))


def _point_to(folder: Path, database: str) -> None:
    execute(
        f"update {lake.CATALOG}.ducklake_metadata set value = '{folder}/' where key = 'data_path'",
        database,
    )


@cache
def _template() -> Path:
    if execute(f"select 1 from pg_database where datname = '{TEMPLATE}'"):
        sql = f"select value from {lake.CATALOG}.ducklake_metadata where key = 'data_path'"
        return Path(execute(sql, TEMPLATE)[0][0])
    execute(f"create database {TEMPLATE}")
    folder = Path(tempfile.mkdtemp(prefix="flywheel-empty-lake-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with warehouse.reading(Lake(f"{server()}/{TEMPLATE}", str(folder))):
        return folder
