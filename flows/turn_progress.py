"""The progress of a turn, on disk while it runs, for whoever follows it."""

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from components.store import manifest

NAME = "stages.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a turn; ``seconds`` of wall time are ``None`` while it runs.

    ``reused``: its output existed before; ``said`` is its outcome; ``job`` is the folder with the
    progress of a training or evaluation; ``began`` is a time in ISO 8601, ``None`` where
    only the progress is shown.
    """

    name: str
    seconds: float | None = None
    reused: bool = False
    said: str = ""
    job: str | None = None
    began: str | None = field(default=None, compare=False)


class Stages:
    """The stages of one turn, written to its folder at each change."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / NAME
        self._stages: list[Stage] = []

    @contextmanager
    def during(self, name: str, job: Path | None = None) -> Generator[None]:
        """Time a stage; ``note`` inside it adds its outcome."""
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._stages.append(Stage(name, job=str(job) if job else None, began=began))
        self._save()
        started = time.monotonic()
        yield
        self._change(seconds=round(time.monotonic() - started, 1))

    def note(self, outcome: str, *, reused: bool = False) -> None:
        """Add its outcome to the running stage, and whether its output existed before."""
        self._change(said=outcome, reused=reused)

    def as_json(self) -> list[dict[str, object]]:
        """Return the stages as the turn's manifest stores them."""
        return [asdict(stage) for stage in self._stages]

    def _change(self, **changes: object) -> None:
        self._stages[-1] = replace(self._stages[-1], **changes)  # pyright: ignore[reportArgumentType]
        self._save()

    def _save(self) -> None:
        manifest.write_atomically(self._path, json.dumps(self.as_json()))


def read(folder: Path) -> list[Stage]:
    """Read the stages of a turn; empty before its first."""
    try:
        return [Stage(**stage) for stage in json.loads((folder / NAME).read_text())]
    except FileNotFoundError:
        return []
