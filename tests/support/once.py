"""What several tests copy, made once: for all workers of a test run, by the first that needs it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from components.store import file_locks

FOLDER = "FLYWHEEL_TEST_TEMPLATES"


def begin() -> None:
    """Name a folder for what is made, to the processes that this one starts, too."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="flywheel-templates-")
        atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)


def made(name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder that ``make`` has filled, which nobody changes."""
    begin()
    folder = Path(os.environ[FOLDER]) / name
    finished = folder.with_name(f"{name}.finished")
    with file_locks.held(folder.with_name(f"{name}.lock")):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a killed or failed one has left
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder
