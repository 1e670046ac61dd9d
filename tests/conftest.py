"""What holds for all tests."""

import os

# A worker of the test run is told a width, which every console of the process would keep.
os.environ.pop("COLUMNS", None)
