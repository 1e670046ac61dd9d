"""Remember verdicts by all that they are about, so that nothing is asked twice.

A line holds a digest and a verdict: no word of a request, of an answer or of a reply.
"""

import json
from pathlib import Path
from threading import Lock

from components.evaluate.judging.question import Verdict


class Verdicts:
    """The verdicts in a file of JSON lines; ``None`` stands for a reply that is none."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._known: dict[str, Verdict | None] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            try:
                key, verdict = json.loads(line)
            except ValueError:  # it was cut off by a crash
                continue
            self._known[key] = verdict

    def __contains__(self, key: str) -> bool:
        """Tell whether this was judged."""
        return key in self._known

    def __getitem__(self, key: str) -> Verdict | None:
        """Give a verdict that was kept."""
        return self._known[key]

    def keep(self, key: str, verdict: Verdict | None) -> None:
        """Add a verdict to the file, at once."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps([key, verdict]) + "\n")
            self._known[key] = verdict
