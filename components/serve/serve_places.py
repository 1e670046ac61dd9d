"""Where serving keeps its files in a home."""

from dataclasses import dataclass
from pathlib import Path

from components.models import model_signature
from components.serve import routes, staged_version


@dataclass(frozen=True, slots=True)
class ServePlaces:
    """Where serving keeps its files in a home."""

    home: Path

    @property
    def folder(self) -> Path:
        """The folder of all of them."""
        return self.home / "serve"

    @property
    def routes(self) -> Path:
        """Who serves each workload."""
        return self.folder / routes.FILE

    @property
    def adapters(self) -> Path:
        """The staged adapters."""
        return self.folder / staged_version.ADAPTERS

    @property
    def references(self) -> Path:
        """The references that were made here, by adapter."""
        return self.folder / staged_version.CACHE

    @property
    def status(self) -> Path:
        """The newest status."""
        return self.folder / "status.json"

    @property
    def public_key(self) -> Path:
        """The key that verifies versions."""
        return self.home / "keys" / model_signature.PUBLIC
