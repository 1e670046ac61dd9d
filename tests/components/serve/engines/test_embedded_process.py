"""The embedded engine's process starts wherever its temporary files lie."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import pytest

from components.serve.engines.embedded_process import EmbeddedOptions, EmbeddedProcess
from components.serve.engines.serving_engine import Generation
from tests.support import tiny


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_engine_starts_under_a_path_that_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.build(tmp_path / "base")
    deep = tmp_path / ("d" * 100) / "tmp"
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    async def scenario() -> None:
        process = EmbeddedProcess("embedded", EmbeddedOptions(base, "fp32", slots=1, threads=1))
        try:
            await process.start()
            generation = Generation("Hello", max_tokens=2)
            pieces = [p async for p in process.client.complete("base", generation)]
            assert pieces
        finally:
            await process.stop()

    asyncio.run(scenario())
    assert not list(deep.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_at_the_gateways_terminal_does_not_reach_the_engine(tmp_path: Path) -> None:
    base = tiny.build(tmp_path / "base")

    async def scenario() -> None:
        process = EmbeddedProcess("embedded", EmbeddedOptions(base, "fp32", slots=1, threads=1))
        try:
            await process.start()
            assert process.pid
            assert os.getpgid(process.pid) != os.getpgid(0)
        finally:
            await process.stop()

    asyncio.run(scenario())


def test_a_process_that_cannot_be_started_for_a_moment_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))

    async def scenario() -> None:
        process = EmbeddedProcess("embedded", EmbeddedOptions(tmp_path))
        starting = asyncio.create_task(process.start())
        try:
            await asyncio.sleep(0.2)
            assert process.pid is None
            script = tmp_path / "script"
            script.write_text("#!/bin/sh\nexec sleep 60\n")
            script.chmod(0o755)
            script.rename(python)
            async with asyncio.timeout(10):
                while process.pid is None:
                    await asyncio.sleep(0.02)
        finally:
            starting.cancel()
            await process.stop()

    asyncio.run(scenario())
