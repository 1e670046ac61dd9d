"""What the tests of flows have in common."""

from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import terminal
from tests.support.terminal import Terminal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that the right workload file names."""
    for name in ("base/config.json", "logs/b.jsonl", "logs/a.jsonl", "logs/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    """The shell of a new home whose stack is up."""
    shell = terminal.in_home(tmp_path / "home")
    assert shell.run("up").returncode == 0
    yield shell
    shell.run("down")


@pytest.fixture(scope="module")
def prefect_server() -> Generator[None]:
    """A Prefect server of the tests' own, on a machine that may be busy."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        pytest.MonkeyPatch.context() as environment,
    ):
        port = urlsplit(PREFECT_API_URL.value()).port
        environment.setenv("FLYWHEEL_PREFECT_PORT", str(port))
        yield
