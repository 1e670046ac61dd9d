"""A worker process that sleeps for the seconds of its task; it answers with its number."""

import os
import time
from collections.abc import Sequence

from components import worker_processes

NUMBER = os.getpid()


def nap(task: list[bytes]) -> Sequence[bytes]:
    time.sleep(float(task[0]))
    return [str(NUMBER).encode()]


if __name__ == "__main__":
    worker_processes.serve_calls(nap, cpu_seconds=5.0)
