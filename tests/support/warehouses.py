"""A new warehouse for a test: a copy of an empty one, which takes a fifth of the time.

With ``FLYWHEEL_TEST_WAREHOUSE=lake`` (`make test-lake`) it is a lake instead of a file.
"""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from components.extensions.machines.lake_warehouse import Lake
from components.store import warehouse, warehouse_port
from components.store.warehouse import Connection, Location
from tests.support import lakes, once

NAME = "warehouse.duckdb"
ON_LAKE = os.environ.get("FLYWHEEL_TEST_WAREHOUSE") == "lake"


def only_a_file(reason: str) -> pytest.MarkDecorator:
    """Mark a test of what a lake does not have, and say what."""
    return pytest.mark.skipif(ON_LAKE, reason=reason)


def location(path: Path) -> Path | Lake:
    """Return the file at a path, or the lake that stands for it."""
    return lakes.new(path) if ON_LAKE else path


@contextmanager
def connect(path: Location) -> Generator[Connection]:
    """Open a warehouse; one that is missing begins as a copy of an empty one."""
    place = location(path) if isinstance(path, Path) else path
    if not isinstance(place, Path):
        assert isinstance(place, Lake)
        with warehouse.connect(place, writes=warehouse_port.GROUPS) as con:
            _lakes[id(con)] = place
            try:
                yield con
            finally:
                del _lakes[id(con)]
        return
    if not place.exists():
        create(place)
    with warehouse.connect(place) as con:
        yield con


@contextmanager
def connect_filled(path: Path, fill: Callable[[Connection], None]) -> Generator[Connection]:
    """Open a copy of the warehouse that ``fill`` has filled once for all tests; a lake is new."""
    if not ON_LAKE:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_filled(fill), path)
    with connect(path) as con:
        if ON_LAKE:
            fill(con)
        yield con


def _filled(fill: Callable[[Connection], None]) -> Path:
    def make(folder: Path) -> None:
        with connect(folder / NAME) as con:
            fill(con)

    return once.made(f"{fill.__module__}.{fill.__qualname__}", make) / NAME


def create(path: Path) -> None:
    """Copy an empty warehouse to a path, for code that opens it itself and would make it anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_empty(), path)


VERSION_0 = """
    create schema raw;
    create table raw.migrations (number integer primary key, name text);
    insert into raw.migrations values (1, '0001_raw.sql'), (59, '0059_audits.sql');
"""
"""What the last version 0.x had applied."""


def create_of_version_0(path: Path) -> None:
    """Create a file as a version 0.x left it, with its list of migrations and no other table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(path) as con:
        con.execute(VERSION_0)


_lakes: dict[int, Lake] = {}


def lake_of(con: Connection) -> Lake:
    """Return the lake that a connection of ``connect`` is to."""
    return _lakes[id(con)]


def _empty() -> Path:
    def make(folder: Path) -> None:
        with warehouse.connect(folder / NAME):
            pass

    return once.made("warehouse", make) / NAME
