"""What holds for all tests."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import HealthCheck, settings

from components.store.warehouse import Connection
from flows import settings as installation
from flows.settings import Settings
from tests.support import once, warehouses

# A worker of the test run is told a width, which every console of the process would keep.
os.environ.pop("COLUMNS", None)

# Before MLflow is imported, also where processes are forked from: no thread of it lives there.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # its queue speaks at exit

# Nothing is compiled on a CPU; importing bitsandbytes would load the compiler, in 1.5 s a process.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

# Each machine trains the tests' models in the same type, whichever is the faster there.
os.environ["FLYWHEEL_CPU_TYPE"] = "bf16"

# The default suite judges a change by the same cases each time; `make test-slow` draws new ones.
# How long drawing takes depends on what else the machine does.
settings.register_profile(
    "fixed", derandomize=True, max_examples=6, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", print_blob=True)
settings.load_profile("fixed")


class Log(logging.StreamHandler[TextIO]):
    """What a failed test logged, which no command's output has. It fails a test that logs badly."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - it is Python's
        raise  # what formatting the message raised


logging.getLogger().addHandler(Log(sys.__stderr__))

once.begin()  # in the process that starts the workers

gc.disable()  # nothing of what is imported for the tests is garbage, and it is looked through often


def pytest_configure(config: pytest.Config) -> None:
    """Let clients trust no certificates where nothing is downloaded: each would read all."""
    if "not slow" in config.option.markexpr:
        os.environ.pop("SSL_CERT_FILE", None)
        os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


def pytest_collection_finish() -> None:
    """Let the garbage collector, which each training calls, pass over all that was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def passes_over_what_earlier_files_keep() -> None:
    """Let the garbage collector look once through what a file's tests leave, not ever again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def begins_where_pytest_does(pytestconfig: pytest.Config) -> None:
    """Fail a file whose tests would run in the folder of another file's fixture."""
    assert Path.cwd() == pytestconfig.rootpath, "a fixture of an earlier file is still in force"


@pytest.fixture
def con(tmp_path: Path) -> Iterator[Connection]:
    """A warehouse of the test's own."""
    with warehouses.connect(tmp_path / warehouses.NAME) as con:
        yield con


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty home and an MLflow store beside it, which commands find by their variables."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    return installation.load()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The messages that are logged during a test."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    yield messages
    logging.getLogger().removeHandler(handler)
