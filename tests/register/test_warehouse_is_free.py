"""A change of champion talks to MLflow for seconds, and nobody waits for the warehouse so long."""

import os
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from components import warehouse
from components.register import aliases
from flows import champions, registering
from flows.settings import Settings
from tests.forking import PROCESSES
from tests.register.versions import ask_with_files, crowned, decide, say_yes, workload

SLOW_SECONDS = 0.08
"""How long each of some fifty words with MLflow waits: its database is held by somebody else."""

LONGEST_SECONDS = 2.0
"""What the issue promises of every wait for the warehouse."""


def use_it(path: Path, is_over: Event, longest: "PROCESSES.Value") -> None:  # pyright: ignore
    """Open the warehouse again and again, and note the longest wait for it."""
    while not is_over.is_set():
        began = time.monotonic()
        with warehouse.connect(path):
            longest.value = max(longest.value, time.monotonic() - began)
        time.sleep(0.3)


@contextmanager
def slow_mlflow() -> Generator[None]:
    """Let somebody else hold MLflow's database nearly all the time."""
    is_over = threading.Event()
    path = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")

    def hold() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as con:
            while not is_over.is_set():
                con.execute("begin exclusive")
                time.sleep(SLOW_SECONDS)
                con.execute("rollback")
                time.sleep(0.03)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("change", ["rollback", pytest.param("promotion", marks=pytest.mark.slow)])
def test_nobody_waits_for_a_change_of_champion_that_waits_for_mlflow(
    change: str, home: Settings, base_model: Path
) -> None:
    name = f"free-{change}"
    crowned(name, 2, home)
    found = ask_with_files(name, 3)
    say_yes(home, name, 3)
    is_over, longest = PROCESSES.Event(), PROCESSES.Value("d", 0.0)
    user = PROCESSES.Process(target=use_it, args=(home.warehouse, is_over, longest))
    user.start()
    with slow_mlflow():
        began = time.monotonic()
        if change == "rollback":
            champions.roll_back(home, name, None, by="bob", reason="rude")
        else:
            made = workload(name, base_model)
            registering.crown(made, found, decide(name, 3), lambda: None)
        took = time.monotonic() - began
    is_over.set()
    user.join()
    assert aliases.read(name).champion == ("1" if change == "rollback" else "3")
    assert took > LONGEST_SECONDS, "MLflow was not slow, so nothing was shown"
    assert longest.value < LONGEST_SECONDS
