"""What was approved of a workload, in a file: it can be read while others hold the warehouse.

It is written from the chain of decisions and the journal whenever a champion changes. It lies in
the home, where no server writes, and holds no names; what is done by it is held against the chain
later.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from components import manifest
from components.register.rollback import Approved


@dataclass(frozen=True, slots=True)
class Known:
    """Versions that may be gone back to; ``is_open``: anybody may order it, under any name."""

    approved: Approved
    is_open: bool


def write(folder: Path, workload: str, known: Known) -> None:
    """Keep it; whoever holds the workload's lock may do this."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"approved": sorted(map(list, known.approved)), "is_open": known.is_open}
    manifest.write_atomically(_file(folder, workload), json.dumps(told))


def read(folder: Path, workload: str) -> Known | None:
    """Read it; ``None`` before a champion changed under a version that writes it."""
    path = _file(folder, workload)
    if not path.exists():
        return None
    told = json.loads(path.read_text())
    pairs = frozenset((str(number), str(evidence)) for number, evidence in told["approved"])
    return Known(pairs, bool(told["is_open"]))


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}.approved.json"
