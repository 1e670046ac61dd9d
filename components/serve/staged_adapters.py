"""The adapters that are staged in a home, and whose files are damaged."""

import shutil
import stat
from pathlib import Path

from components.serve import staged_version
from components.serve.proof import Resident
from components.serve.staged_version import StagedVersion


class StagedAdapters:
    """A folder of staged versions, by the engine's names of their adapters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._residents: dict[str, Resident] = {}
        self.damaged: set[str] = set()
        """The models whose staged files are gone or were changed; they have to be staged again."""

    def read(self, model: str) -> StagedVersion:
        """Return a staged version; ``OSError`` or ``ValueError``: its files are gone or damaged."""
        return staged_version.read_staged(self.folder, model)

    def resident(self, model: str) -> Resident:
        """Return what a version's proof compares with, which is read once."""
        if model not in self._residents:
            self._residents[model] = self.read(model).resident()
        return self._residents[model]

    def forget(self, model: str) -> None:
        """Let a version's proof be read anew."""
        self._residents.pop(model, None)

    def names(self) -> set[str]:
        """Return the models that are staged, or were in part."""
        paths = [*self.folder.iterdir()] if self.folder.is_dir() else []
        names = {path.name.removesuffix(".json").removesuffix(".references") for path in paths}
        return {name for name in names if staged_version.NAME.fullmatch(name)}

    def delete(self, model: str) -> None:
        """Delete a staged folder that no replica lists any more."""
        self.damaged.discard(model)
        for path in (
            staged_version.record_path(self.folder, model),
            self.folder / f"{model}.references.json",
        ):
            path.unlink(missing_ok=True)
        folder = self.folder / model
        if folder.is_dir():
            folder.chmod(stat.S_IRWXU)
            shutil.rmtree(folder)
