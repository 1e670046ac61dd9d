"""What this process may use of the machine: cores and memory, also in a container."""

import math
import os
import platform
import re
import resource
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import psutil


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores of this process's affinity, capped by its container's CPU quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (FileNotFoundError, ValueError):  # cgroup v1, or no cgroup
        return allowed
    return allowed if quota == "max" else min(allowed, math.ceil(int(quota) / int(period)))


def processor(proc: Path = Path("/proc")) -> str:
    """Return the processor's name, or its architecture where it has no name."""
    cpuinfo = proc / "cpuinfo"
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model.group(1) if model else platform.machine()


def available_memory(
    cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Return the bytes that processes can take now: what the machine has, and its cgroups allow."""
    free = [psutil.virtual_memory().available]
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = cgroup, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroup / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        place = PurePosixPath(path.lstrip("/"))
        for folder in (place, *place.parents):  # a container may see its own as the root
            with suppress(OSError, ValueError):  # no such folder, or no limit: max
                free.append(_left_of_limit(root / folder, *files))
    return max(0, min(free))


@contextmanager
def limited_memory(more: int) -> Generator[None]:
    """Let this process allocate at most ``more`` bytes in the block: then ``MemoryError``.

    For what somebody else wrote, a file of which a few kilobytes can unpack into all memory.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = [pages * resource.getpagesize() + more, soft, hard]
    least = min(limit for limit in limits if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _left_of_limit(folder: Path, limit: str, usage: str, droppable: str) -> int:
    counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    used = int((folder / usage).read_text()) - int(counts.get(droppable, 0))
    return int((folder / limit).read_text()) - used
