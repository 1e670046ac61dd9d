"""Calls to MLflow take seconds, during which the warehouse is not held."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from components.register import registry
from components.release import champions
from components.release.rollback_rules import Order
from components.store import warehouse
from flows import promotion, release_home
from flows.settings import Settings
from tests.support import forking
from tests.support.forking import PROCESSES
from tests.support.versions import ask_with_files, crowned, decide, say_yes, workload

SLOW_SECONDS = 0.06
"""How long each of some fifty words with MLflow waits: its database is held by somebody else."""


def use_it(path: Path, is_over: Event, longest: "PROCESSES.Value") -> None:  # pyright: ignore
    """Open the warehouse again and again, and note the longest wait for it."""
    while not is_over.is_set():
        began = time.monotonic()
        with warehouse.connect(path):
            longest.value = max(longest.value, time.monotonic() - began)
        time.sleep(0.3)


@contextmanager
def slow_mlflow() -> Generator[None]:
    """Let somebody else hold MLflow's database half of the time."""
    is_over = threading.Event()
    path = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")

    def hold() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as con:
            while not is_over.is_set():
                con.execute("begin exclusive")
                time.sleep(SLOW_SECONDS)
                con.execute("rollback")
                time.sleep(SLOW_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def share_waited(home: Settings, act: Callable[[], object]) -> float:
    """Return another process's longest wait as a share of the time that a champion's change took.

    The share does not depend on the machine; ``tests/flows/test_long_curation.py`` counts seconds.
    """
    is_over, longest = PROCESSES.Event(), PROCESSES.Value("d", 0.0)
    user = forking.process(use_it, home.warehouse, is_over, longest)
    user.start()
    with slow_mlflow():
        began = time.monotonic()
        act()
        took = time.monotonic() - began
    is_over.set()
    user.join()
    return longest.value / took


@pytest.mark.slow
def test_nobody_waits_for_a_rollback_that_waits_for_mlflow(home: Settings) -> None:
    crowned("free", 2, home)
    order = Order("free", None, "bob", "rude")
    back = partial(champions.roll_back, release_home.of(home), order)
    assert share_waited(home, back) < 0.5
    assert registry.read_aliases("free").champion == "1"


@pytest.mark.slow
def test_nobody_waits_for_a_promotion_that_waits_for_mlflow(
    home: Settings, base_model: Path
) -> None:
    crowned("freed", 2, home)
    evidence, made = ask_with_files("freed", 3), workload("freed", base_model)
    say_yes(home, "freed", 3)
    crown = partial(promotion.promote_version, made, evidence, decide("freed", 3), lambda: None)
    assert share_waited(home, crown) < 0.5
    assert registry.read_aliases("freed").champion == "3"
