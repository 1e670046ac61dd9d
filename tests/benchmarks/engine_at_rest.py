"""What the embedded engine computes while nobody asks it, for checks of its adapters.

    python -m tests.benchmarks.engine_at_rest --base FOLDER [--residents 2] [--seconds 180]

It makes adapters on the base, has them proved, and prints what the engine computes for the proofs
after the loads, and then for each second at rest.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

from components.serve.engines.embedded_process import EmbeddedOptions, EmbeddedProcess
from components.serve.settings import SwapSettings
from tests.support.staged_adapters import stage_adapter
from tests.support.swap_load import running_swap


async def rest(base: Path, residents: int, seconds: float, home: Path) -> None:
    """Print what is used."""
    staged = [stage_adapter(home, base, f"workload-{n}", n + 1) for n in range(residents)]
    process = EmbeddedProcess("embedded", EmbeddedOptions(base, "fp32", threads=1))
    async with running_swap(home, {}, SwapSettings()) as swap:
        try:
            await process.start()
            await swap.replicas.add(process.client, None)
            engine = psutil.Process(process.pid)
            before = used(engine)
            for version in staged:
                await swap.follow(version)
            say(f"{residents} loads and proofs: {used(engine) - before:.1f} s of a processor")
            before, began = used(engine), time.monotonic()
            await asyncio.sleep(seconds)
            share = (used(engine) - before) / (time.monotonic() - began)
            say(f"at rest, {seconds:.0f} s: {share:.3f} of a core")
        finally:
            await process.stop()


def used(process: psutil.Process) -> float:
    """Return the seconds of a processor that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Measure one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--residents", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=180)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(rest(given.base, given.residents, given.seconds, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
