"""Serve a receiver with the limits of a test: ``launch.py SPOOL TOKENS LIMITS``."""

import sys
from pathlib import Path

from components.receive import serve
from components.receive.settings import Limits


def say(url: str) -> None:
    """Tell the parent where to send."""
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def main() -> None:
    """Listen on a free port and print the URL."""
    serve.serve(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        host="127.0.0.1",
        port=0,
        limits=Limits.model_validate_json(sys.argv[3]),
        ready=say,
    )


if __name__ == "__main__":
    main()
