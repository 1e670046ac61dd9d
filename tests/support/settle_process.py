"""Settle canaries in processes that can be killed: a line with a workload starts one.

`python -m tests.support.settle_process` has imported all that it takes; it prints the process's id,
and how it ended.
"""

import os
import sys

from flows import settings
from flows.canary import settle_rollouts


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            done = settle_rollouts.settle(settings.load(), line.strip())
            os._exit(0 if done is None else 1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
