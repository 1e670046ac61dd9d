"""Train for some seconds, by the code that trains, and throw the result away: how fast is it here?

Imported late, since it loads torch.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch  # noqa: TID253 - this module is itself imported late

from components.schema import Progress
from components.train import fit
from components.train.recipe import Recipe

LEAST_STEPS = 3
"""One to warm up, and two to time."""


class _Enough(Exception):  # noqa: N818 - it is no error
    """The time is over."""


def calibrate(
    snapshot: Path,
    base: Path,
    recipe: Recipe,
    seconds: float,
    *,
    report: Callable[[Progress], None],
) -> None:
    """Train for so many seconds after the first step, and at least three steps.

    Args:
        snapshot: What will be trained on.
        base: The base's folder.
        recipe: How it will be trained.
        seconds: How long.
        report: Called after each step with the ``seconds`` since the first step's end, the
            ``peak_bytes`` that this process, or the GPU, has held so far, and the ``loaded_bytes``
            of them that were there before.
    """
    first: float | None = None
    loaded = float(_loaded_bytes())

    def watch(progress: Progress) -> None:
        nonlocal first
        now = time.monotonic()
        first = now if first is None else first
        figures = {"seconds": now - first, "peak_bytes": float(_peak_bytes())}
        figures["loaded_bytes"] = loaded
        report(Progress("calibrate", progress.done, progress.total, progress.unit, figures))
        if now - first >= seconds and progress.done >= LEAST_STEPS:
            raise _Enough

    with TemporaryDirectory(prefix="flywheel-calibrate-") as folder:
        try:
            fit.fit(snapshot, base, Path(folder) / "adapter", recipe, report=watch)
        except _Enough:
            return


def _peak_bytes() -> int:
    """Give the most that was held so far: by the GPU's tensors, or by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(line for line in lines if line.startswith("VmHWM:"))
    return int(held.split()[1]) * 1024  # Linux counts in KiB


def _loaded_bytes() -> int:
    return 0 if torch.cuda.is_available() else psutil.Process().memory_info().rss
