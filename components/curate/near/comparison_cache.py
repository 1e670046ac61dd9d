"""What comparing a workload's texts leaves to its next curation, in a folder."""

from pathlib import Path

from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.kept_pairs import KeptPairs
from components.curate.near.kept_words import KeptWords

FOLDER = "comparisons"
"""Of the folder in that of a workload's judgements."""

VERSION = "1"
"""Of how texts are hashed and compared; raise it when that changes."""


class ComparisonCache:
    """Hashed words of texts, their shared words, and what pairs of texts had in common.

    Each is a function of the texts alone, so that it decides no result. They are in ``folder``,
    which only one process may use at a time, or in memory if it is ``None``.
    """

    def __init__(self, folder: Path | None) -> None:
        self.arrays = KeptArrays(folder, VERSION)
        self.words = KeptWords(self.arrays)
        self.jaccards = KeptPairs(self.arrays, "jaccards")
        self.passages = KeptPairs(self.arrays, "passages")

    def save(self) -> None:
        """Keep what this curation used."""
        self.words.drop_others()
        self.jaccards.keep()
        self.passages.keep()
        self.arrays.save()
