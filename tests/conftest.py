"""What holds for all tests."""

import gc
import os

from hypothesis import settings

# A worker of the test run is told a width, which every console of the process would keep.
os.environ.pop("COLUMNS", None)

# The default suite judges a change by the same cases each time; `make test-slow` draws new ones.
settings.register_profile("fixed", derandomize=True, max_examples=25)
settings.register_profile("random", print_blob=True)
settings.load_profile("fixed")


def pytest_collection_finish() -> None:
    """Let the garbage collector, which each training calls, pass over all that was imported."""
    gc.freeze()
