"""What a spin turns: the base, the requests, how much of each, and its files in a home."""

from dataclasses import dataclass
from pathlib import Path

from flows.settings import Settings
from tests.spin.spin_requests import SpinRequests

WORKLOAD = "spin"


class SpinError(RuntimeError):
    """The spin can't begin here, or its gateway refuses what it has to serve."""


@dataclass(frozen=True, slots=True)
class SpinPlan:
    """What is spun: the base, the requests, the workload's file, and how much of each."""

    base: Path
    requests: SpinRequests
    workload_text: str
    turns: int
    first: int = 400
    """The answers before the first turn."""
    fresh: int = 40
    """The answers between the end of a turn and the start of the next, at least."""
    pace: float = 5.0
    """Seconds between two requests, after the first ones."""


@dataclass(frozen=True, slots=True)
class SpinFiles:
    """The files of a spin in a home."""

    folder: Path
    requests: Path
    answers: Path
    feedback: Path
    state: Path
    page: Path

    @classmethod
    def of_home(cls, settings: Settings) -> "SpinFiles":
        """Return the files in ``<home>/spin``."""
        folder = settings.home / "spin"
        names = ("requests.jsonl", "answers.jsonl", "feedback.jsonl", "state.json", "spin.html")
        return cls(folder, *(folder / name for name in names))
