from collections.abc import Callable
from pathlib import Path

import pytest

from components.erase.certificate import Certificate
from components.erase.subject import Subject
from flows.erasing import erase
from flows.erasing.erase import ErasureRequest
from flows.settings import Settings
from tests.support import erased_home, logs
from tests.support.erased_home import House

Eraser = Callable[..., Certificate]


@pytest.fixture(scope="session")
def built() -> House:
    return erased_home.build_once()


@pytest.fixture
def home(built: House, tmp_path: Path) -> House:
    """A house of the test's own."""
    return erased_home.move(built, tmp_path / "home")


@pytest.fixture(scope="session")
def eraser() -> Eraser:
    """Erase as the command does, without asking."""

    def run(settings: Settings, subject: Subject, *, demote: bool = False) -> Certificate:
        asked = ErasureRequest(subject, demote, {})
        return erase.erase(settings, asked, now=lambda: logs.NOW, report=lambda _: None)

    return run
