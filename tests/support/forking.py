"""Start a process in a few milliseconds, so that it can be killed where it works, not imports.

All are forked from one process that has imported what they need.
"""

import multiprocessing
from multiprocessing import forkserver

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.components.collect.test_exactly_once",
        "tests.components.register.test_interrupted_changes",
    ]
)


def ready() -> None:
    """Start that process where these modules are found: in the folder that is the current one."""
    forkserver.ensure_running()
