"""A workload's champions, in a file that can be read while others hold the warehouse.

It is written from the journal and the chain of decisions after every change of a champion. It lies
in the home, where no server writes, and holds no names. What is done by it is checked against the
chain later.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from components import manifest
from components.register.rollback import Succession


@dataclass(frozen=True, slots=True)
class Known:
    """A workload's champions so far; ``is_open``: anybody may order a rollback, by any name."""

    champions: Succession
    is_open: bool


def write(folder: Path, workload: str, known: Known) -> None:
    """Write it; the caller holds the workload's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    champions = known.champions
    content = {
        "approved": sorted(map(list, champions.approved)),
        "before": champions.before,
        "left": sorted(champions.left),
        "is_open": known.is_open,
    }
    manifest.write_atomically(_file(folder, workload), json.dumps(content))


def read(folder: Path, workload: str) -> Known | None:
    """Read it; ``None`` before a champion changed under a version that writes it."""
    path = _file(folder, workload)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    champions = Succession(
        approved=frozenset(
            (str(number), str(evidence)) for number, evidence in content["approved"]
        ),
        before=content.get("before", {}),  # missing in files of older versions
        left=frozenset(content.get("left", [])),
    )
    return Known(champions, bool(content["is_open"]))


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}.approved.json"
