"""Serve a receiver with the limits of a test."""

from pathlib import Path

from components.receive import serve
from components.receive.settings import Limits
from tests.support.forking import Ready


def launch(ready: Ready, spool: Path, tokens: Path, limits: Limits) -> None:
    """Listen on a free port and say the URL."""
    serve.serve(spool, tokens, host="127.0.0.1", port=0, limits=limits, ready=ready)
