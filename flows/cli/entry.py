"""The entry point of `flywheel`: Ctrl-C ends it without a traceback, also while it is loaded."""

import os
import signal
import sys


def main() -> None:
    """Load the command, which takes a third of a second, and run it."""
    # Children are modules that Python runs: none is taken from the folder that this is typed in.
    os.environ["PYTHONSAFEPATH"] = "1"
    is_heeded = signal.getsignal(signal.SIGINT) == signal.default_int_handler  # not after `nohup`
    if is_heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flows.cli import main as command

    if is_heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command.main()
    except KeyboardInterrupt:
        sys.exit(130)
