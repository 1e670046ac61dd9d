"""The child that looks at canaries' evidence; ``canary.rollout_look`` is what it runs."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

import orjson

from components.schema import Json

LONGEST_SECONDS = 60.0  # of a look, which reads for a third of that (``rollout_look``)
LONGEST_LINE = 2**20


class LookError(Exception):
    """A look failed; the next one may not."""


class LookProcess:
    """Starts the child at the first look; belongs to one event loop."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def look(self, order: str, evidence: Path, elapsed: float) -> dict[str, Json] | None:
        """Return ``verdict``, ``shadow`` and ``unreadable``; ``None`` if more is to be read first.

        Raises:
            LookError: It failed.
        """
        request = [order, str(evidence), elapsed]
        async with self._lock:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    answer = await self._ask(orjson.dumps(request) + b"\n")
            except (OSError, ValueError, TimeoutError) as error:
                await self._end()
                raise LookError(f"looking at {evidence}: {error!r}") from error
            except asyncio.CancelledError:
                await self._end()  # its answer would be taken for the next look's
                raise
        if answer.get("is_behind"):
            return None
        if "verdict" not in answer:
            raise LookError(f"looking at {evidence}: {answer.get('error')}")
        return answer

    async def close(self) -> None:
        """End the child."""
        async with self._lock:
            await self._end()

    async def _ask(self, line: bytes) -> dict[str, Json]:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "components.serve.canary.rollout_look"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        await process.stdin.drain()
        answer = await process.stdout.readline()
        if not answer:
            raise ValueError("its process ended")
        return cast("dict[str, Json]", orjson.loads(answer))

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
