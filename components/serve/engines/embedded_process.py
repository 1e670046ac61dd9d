"""The embedded engine's process: started, restarted when it dies, and stopped with this one."""

import asyncio
import logging
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import UpstreamError
from components.serve.engines.vllm_server import Dialect, VllmServer

LOG = logging.getLogger(__name__)

MODULE = "components.extensions.embedded"
LONGEST_SOCKET_PATH = 107  # bytes; Linux's limit
START_SECONDS = 300.0
STOP_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a process that died is started again


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How the process is started; ``None`` leaves the choice to it."""

    base: Path
    precision: str | None = None
    slots: int = 8
    threads: int | None = None
    max_loras: int = 8
    client_share: float | None = None

    def arguments(self, listen: str) -> list[str]:
        """Return its command line."""
        options = {
            "--base": self.base,
            "--name": self.base.name,
            "--listen": listen,
            "--precision": self.precision,
            "--slots": self.slots,
            "--threads": self.threads,
            "--max-loras": self.max_loras,
            "--client-share": self.client_share,
        }
        pairs = [(name, str(value)) for name, value in options.items() if value is not None]
        arguments = [part for pair in pairs for part in pair]
        return [sys.executable, "-m", MODULE, *arguments, "--die-with-parent", str(os.getpid())]


class EmbeddedProcess:
    """A child process with a base; its client sees a restart as a new start time."""

    def __init__(
        self, name: str, options: EmbeddedOptions, *, patience_seconds: float = 60.0
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="flywheel-engine-")
        self._descriptor: int | None = None
        address = f"unix:{self._socket_path()}"
        self._arguments = options.arguments(address)
        upstream = HttpUpstream(address, patience_seconds=patience_seconds)
        self.client = VllmServer(name, upstream, base=options.base.name, dialect=Dialect())
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ended_with: int | None = None

    def _socket_path(self) -> str:
        path = f"{self._folder.name}/engine.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        # Homes lie deep, and their temporary files in them: a shorter name of the same folder.
        self._descriptor = os.open(self._folder.name, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/{os.getpid()}/fd/{self._descriptor}/engine.sock"

    @property
    def pid(self) -> int | None:
        """The process's id; ``None`` while it is not running."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            UpstreamError: It ended, or did not answer in time.
        """
        self._keeper = asyncio.create_task(self._keep_running())
        try:
            async with asyncio.timeout(START_SECONDS):
                while self._ended_with is None:
                    with suppress(UpstreamError):
                        await self.client.process_identity()
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise UpstreamError(
                504,
                f"starting {self.client.name}: no answer in {START_SECONDS:g} s",
                is_retryable=True,
            ) from error
        raise UpstreamError(
            502,
            f"starting {self.client.name}: it ended with code {self._ended_with}; its own message "
            "is in the log",
            is_retryable=True,
        )

    async def stop(self) -> None:
        """Stop the process; after ten seconds it is killed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.client.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._folder.cleanup()

    async def _keep_running(self) -> None:
        wait = FIRST_WAIT
        while True:
            started = asyncio.get_running_loop().time()
            try:
                code = self._ended_with = await self._run_once()
            except OSError as error:  # no process is left, or no memory
                LOG.warning("%s can't be started: %s; it is tried again", self.client.name, error)
            else:
                LOG.error("%s ended with code %s; it is started again", self.client.name, code)
            if asyncio.get_running_loop().time() - started > LONGEST_WAIT:
                wait = FIRST_WAIT
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _run_once(self) -> int:
        # Ctrl-C goes to all of a terminal's group: the gateway still needs it for open answers.
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments, start_new_session=True
        )
        try:
            return await self._process.wait()
        finally:
            await _end(self._process)
            self._process = None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
