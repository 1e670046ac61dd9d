"""What comparing a workload's texts leaves to its next curation, in a folder."""

import functools
import sys
import unicodedata
from pathlib import Path

import numpy as np

from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_pairs import KeptNear, KeptPairs
from components.curate.near.kept_words import KeptWords
from components.store import manifest

FOLDER = "comparisons"
"""Of the folder in that of a workload's judgements."""


class ComparisonCache:
    """Hashed words of texts, their shared words, and what pairs of texts had in common.

    Each is a function of the texts alone, so that it decides no result. They are in ``folder``,
    which only one process may use at a time, or in memory if it is ``None``.
    """

    def __init__(self, folder: Path | None) -> None:
        self.arrays = KeptArrays(folder, _own_digest())
        self.words = KeptWords(self.arrays)
        self.near_requests = KeptNear(self.arrays, "requests")
        self.near_instructions = KeptNear(self.arrays, "instructions")
        self.near_documents = KeptNear(self.arrays, "documents")
        self.passages = KeptPairs(self.arrays, "passages")

    def save(self) -> None:
        """Keep what this curation used."""
        self.words.drop_others()
        self.near_requests.jaccards.keep()
        self.near_instructions.jaccards.keep()
        self.near_documents.jaccards.keep()
        self.passages.keep()
        self.arrays.save()


@functools.cache
def _own_digest() -> str:
    return code_digest(Path(__file__).parents[1])


def code_digest(package: Path) -> str:
    """Return the digest of a package's modules, and of what else decides how they hash words."""
    modules = {
        str(path.relative_to(package)): manifest.file_digest(path)
        for path in sorted(package.rglob("*.py"))
    }
    # Python decides what a letter is; numpy may draw other numbers from a seed.
    languages = [*sys.version_info[:2], unicodedata.unidata_version, np.__version__]
    return manifest.digest([modules, languages])
