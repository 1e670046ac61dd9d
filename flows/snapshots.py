"""Find a frozen snapshot: by its folder or key, or a workload's newest."""

from pathlib import Path

from components import manifest
from components.dataset.snapshot import folder_name


def named(root: Path, name: str) -> Path:
    """Find a snapshot by its folder, or by the beginning of its key.

    Raises:
        LookupError: There is none, or there are several.
    """
    if manifest.is_finished(Path(name)):
        return Path(name)
    keys = [path for path in sorted(root.glob("*/*")) if path.name.startswith(name)]
    found = [path for path in keys if manifest.is_finished(path)]
    if len(found) != 1:
        said = ", ".join(str(path) for path in found) or "none"
        raise LookupError(f"looking up snapshot {name}: wants one, found {said} in {root}")
    return found[0]


def newest(root: Path, workload_id: str) -> Path:
    """Find the snapshot of a workload that was frozen last.

    Raises:
        LookupError: It has none.
    """
    folders = (root / folder_name(workload_id)).glob("*")
    found = [path for path in folders if manifest.is_finished(path)]
    if not found:
        raise LookupError(
            f"workload {workload_id} has no snapshot in {root} yet; `flywheel curate FILE` or a "
            "turn makes one"
        )
    return max(found, key=lambda path: (str(manifest.read(path)["created_at"]), path.name))
