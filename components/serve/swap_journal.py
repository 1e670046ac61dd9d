"""What each swap did, a line a step, on disk before the next one: ``serve/journal.jsonl``."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from components.schema import Json

FILE = "journal.jsonl"  # in the home's folder `serve`
FIELDS = {"at", "step", "workload", "model"}  # of every line

Step: TypeAlias = Literal[
    "intended",
    "refused",
    "proved",
    "flipped",
    "canary_began",
    "canary_ended",
    "unloaded",
    "withdrawn",
    "recovered",
]


class SwapJournal:
    """The journal of a home's folder ``serve``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def write(self, step: Step, workload: str, model: str, **more: Json) -> None:
        """Append a step; it is on disk when this returns."""
        line = {"at": now(), "step": step, "workload": workload, "model": model, **more}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut the last line
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Json]]:
        """Return the steps, oldest first; a line that a crash cut, or somebody wrote, is none."""
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        return [step for step in map(_read_step, lines) if step is not None]

    def models(self) -> set[str]:
        """Return the names of all adapters that a step was about."""
        return {str(line["model"]) for line in self.lines()}

    def unfinished(self) -> tuple[str, str] | None:
        """Return the workload and the model of a swap that a crash cut off."""
        lines = self.lines()
        if lines and lines[-1]["step"] in ("intended", "proved"):
            return str(lines[-1]["workload"]), str(lines[-1]["model"])
        return None


def _read_step(line: bytes) -> dict[str, Json] | None:
    try:
        step: Json = json.loads(line)
    except ValueError:
        return None
    if not isinstance(step, dict) or not step.keys() >= FIELDS:
        return None
    return step


def now() -> str:
    """Return the time as journal and routes have it: ISO 8601, UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
