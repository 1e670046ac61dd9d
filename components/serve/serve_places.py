"""Where serving keeps its files in a home."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.models import model_signature
from components.register.version_tags import KNOWN, PENDING
from components.serve import routes, staged_version


@dataclass(frozen=True, slots=True)
class ServePlaces:
    """Where serving keeps its files in a home.

    Where it ``is_shared``, other machines change champions, too, which this home has no record of.
    """

    home: Path
    is_shared: bool = False

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

    def alias_objection(self, workload: str, version: str) -> str | None:
        """Object to an alias that stands where neither the chain's record nor an order has it."""
        expected = set[str | None]()
        with suppress(FileNotFoundError):
            expected.add(json.loads(self._record(workload, KNOWN))["champion"])
            with suppress(FileNotFoundError):
                expected.add(json.loads(self._record(workload, PENDING))["change"]["version"])
        if self.is_shared or not expected or version in expected:
            return None
        known = " or ".join(f"version {each}" for each in expected if each) or "no version"
        return f"somebody moved the alias: by the chain of decisions {known} is champion"

    def _record(self, workload: str, suffix: str) -> str:
        return (self.home / "locks" / f"{workload}{suffix}").read_text()
