"""Find what was measured of an adapter on its holdout, and of its base in the same way."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from components import manifest, scorecard
from components.scorecard import HOLDOUT, Scorecard


@dataclass(frozen=True, slots=True)
class Measured:
    """An adapter's newest scorecard, and its base's under equal conditions, if there is one."""

    adapter: Scorecard
    base: Scorecard | None


def newest(key: str, folders: Iterable[Path]) -> Measured | None:
    """Find the newest scorecard of an adapter; ``None`` if there is none.

    Args:
        key: The adapter's.
        folders: Those of scorecards, finished or not.

    Raises:
        ValueError: A scorecard that was found is not as it was finished.
    """
    records = {one: manifest.read(one) for one in sorted(folders) if manifest.is_finished(one)}
    records = {one: record for one, record in records.items() if record.get("task") == HOLDOUT}
    own = [one for one, record in records.items() if record["adapter"] == key]
    if not own:
        return None
    found = max(own, key=lambda one: (str(records[one]["created_at"]), one.name))
    said = records[found]
    alike = (
        one
        for one, record in records.items()
        if record["adapter"] is None
        and (record["base"], record["conditions"]) == (said["base"], said["conditions"])
    )
    base = next(alike, None)
    return Measured(scorecard.read(found), scorecard.read(base) if base else None)
