"""A version whose files are verified and staged for the engines, and the record beside them."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from components.chat.dialects import Dialect
from components.serve.proof import References, Resident, read_references
from components.store import manifest

ADAPTERS = "adapters"  # the folder of staged adapters in the home's folder `serve`
CACHE = "references"  # the folder of references that were made here, in the home's folder `serve`
SCRATCH = "staging-"  # and its process's id: a folder beside it, while a version is staged

NAME = re.compile(r"(?P<workload>.+)\.v(?P<version>\d+)-[0-9a-f]{12}")
"""The name of an adapter at the engines; no base and no other adapter has one of this form."""


def engine_name(workload: str, version: str, sha256: str) -> str:
    """Return the name of a version at the engines: other files have another name."""
    return f"{workload}.v{version}-{sha256[:12]}"


def workload_of(model: str) -> str:
    """Return the workload of an adapter's name."""
    match = NAME.fullmatch(model)
    if match is None:
        raise ValueError(f"reading the name {model}: expected WORKLOAD.vNUMBER-DIGEST")
    return match["workload"]


@dataclass(frozen=True, slots=True)
class StagedVersion:
    """A verified version on disk; ``folder`` holds its files and nothing else, read-only."""

    workload: str
    version: str
    adapter: str
    sha256: str
    model: str
    base: str
    base_hash: str
    template_hash: str
    form: Dialect
    max_new_tokens: int
    precision: str
    rank: int
    constrained: bool
    """Whether calls were held to their schemas in its evaluation."""
    folder: Path
    labels: tuple[str, ...] = ()
    """The only texts of its answers in its evaluation; any if empty."""

    @property
    def references_path(self) -> Path:
        """Return where its references are."""
        return self.folder.with_name(f"{self.model}.references.json")

    @property
    def record_path(self) -> Path:
        """Return where this record is."""
        return record_path(self.folder.parent, self.model)

    def resident(self) -> Resident:
        """Read its references."""
        return Resident(self.model, self.references())

    def references(self) -> References:
        """Read its references."""
        return read_references(self.references_path)

    def write(self) -> None:
        """Write the record, last of all: a version without one is not staged."""
        content = {**asdict(self), "folder": str(self.folder)}
        manifest.write_atomically(self.record_path, json.dumps(content, indent=2) + "\n")


def record_path(adapters: Path, model: str) -> Path:
    """Return where the record of a staged version is."""
    return adapters / f"{model}.json"


def read_staged(adapters: Path, model: str) -> StagedVersion:
    """Read the record of a staged version.

    Raises:
        FileNotFoundError: It is not staged.
        ValueError: The file is not such a record.
    """
    path = record_path(adapters, model)
    try:
        return TypeAdapter(StagedVersion).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"reading {path}: it is not a staged version: {error}") from error
