"""What holds for all tests."""

import gc
import os

# A worker of the test run is told a width, which every console of the process would keep.
os.environ.pop("COLUMNS", None)


def pytest_collection_finish() -> None:
    """Let the garbage collector, which each training calls, pass over all that was imported."""
    gc.freeze()
