"""The records that pass between files, sources and the loader, and the Source protocol."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from components.schema import Json

Kind: TypeAlias = Literal["interactions", "feedback"]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One JSON object of a file: ``place`` counts from 1, ``text`` is what stood there, verbatim.

    ``place`` is the line of a file of lines, else the number of the array's element or table's row.
    """

    place: int
    text: str
    value: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a record says where its source names no workload or no client."""

    workload_id: str
    client_id: str


NO_DEFAULTS = Defaults("", "")


@dataclass(frozen=True, slots=True)
class Input:
    """A file to load: a path or an fsspec URL.

    ``source`` is detected when it is ``None``; what no source claims is taken for canonical records
    of ``kind``, and quarantined as such.
    """

    place: str
    source: str | None = None
    kind: Kind = "interactions"
    defaults: Defaults = NO_DEFAULTS


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """A canonical record that a source read out of a row; whether it is sound is judged in SQL.

    ``row.text`` is kept with it: the part that it came from, where that can be cut out, else all.
    """

    row: SourceRow
    kind: Kind
    record: dict[str, Json]


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A row that a source can't read; ``reason`` names the field, what it is and what it wants."""

    row: SourceRow
    reason: str


class Source(Protocol):
    """A module of ``components.collect.sources``."""

    @property
    def NAME(self) -> str:  # noqa: N802 - modules write their constants so
        """What config and ``raw`` call it."""
        ...

    def claims(self, value: dict[str, Json], /) -> bool:
        """Tell whether a record has the form of this source; pure and cheap."""
        ...

    def read(
        self, rows: Iterable[SourceRow], defaults: Defaults, /
    ) -> Iterator[ParsedRecord | RejectedRecord]:
        """Turn rows into canonical records, streaming; bad data gives ``Refused``, never raises."""
        ...
