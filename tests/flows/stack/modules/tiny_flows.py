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


@flow
def saving(config: str) -> None:
    """Run a "trainer" that saves for a second when it is stopped, and wait for it as jobs do."""
    trainer = (
        "import pathlib, signal, sys, time\n"
        "def save(*_): time.sleep(1); file.write_text('saved'); sys.exit(143)\n"
        "file = pathlib.Path(sys.argv[1]); signal.signal(signal.SIGTERM, save)\n"
        "file.write_text('started'); time.sleep(3600)\n"
    )
    command = [sys.executable, "-c", trainer, config]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        process.wait()
    finally:
        process.terminate()
        process.wait()
