"""Two flows that the stack's tests deploy: one that ends at once, one that trains for ever."""

import subprocess
import sys
from pathlib import Path

from prefect import flow


@flow
def quick(config: str) -> str:
    """Say that it ran."""
    Path(config).write_text("ran")
    return config


@flow
def endless(config: str) -> None:
    """Run a "trainer" in a session of its own, which ignores SIGTERM, and note its pid."""
    trainer = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    process = subprocess.Popen([sys.executable, "-c", trainer], start_new_session=True)
    Path(config).write_text(str(process.pid))
    process.wait()


@flow
def parent(config: str) -> None:
    """Run the endless flow inside this one."""
    endless(config)
