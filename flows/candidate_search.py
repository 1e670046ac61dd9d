"""The port to what trains several candidates in a turn, of which the best is the challenger.

The extension is ``flows.search``, with ``components.extensions.search``. It is found by its name,
so that no other flow imports it.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from components.costs import Work
    from flows.workload_file import Workload


@dataclass(frozen=True, slots=True)
class TrainingPart:
    """A part of a candidate's training, after which it is compared with others.

    It stops after ``at_step`` (``None``: at its end) or after ``seconds``, if set; ``reached`` is
    written then, and the adapter of that time to ``kept``, if set. ``search`` is the search's
    folder, ``parent`` its MLflow run.
    """

    name: str
    search: Path
    parent: str
    reached: Path
    at_step: int | None
    seconds: float | None
    kept: Path | None


class CandidateSearch(Protocol):
    """What the flows ask of it."""

    def search_folder(self, workload: "Workload", snapshot: Path) -> Path:
        """Return a search's folder, keyed by its candidates and by what compares them."""
        ...

    def best_adapter(self, config: str, workload: "Workload", snapshot: Path) -> tuple[Path, bool]:
        """Return the best candidate's adapter, and whether an earlier run had found it."""
        ...

    def train_candidate(self, workload: "Workload", snapshot: Path, path: Path) -> Path:
        """Carry out the order in a file, unless that was done; return the candidate's adapter."""
        ...

    def spent(self, search: Path) -> "list[tuple[float, Work | None]]":
        """Return the seconds and the work of each part that a search has trained so far."""
        ...


def find() -> CandidateSearch:
    """Return the extension's flow."""
    return cast("CandidateSearch", importlib.import_module("flows.search"))
