"""The records that pass between files, sources and the loader, and the Source protocol."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from components.schema import Json
from components.store.addresses import without_secrets

Kind: TypeAlias = Literal["interactions", "feedback"]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One JSON object of a file, with its verbatim ``text``."""

    place: int  # the number, from 1, of its line, array element or table row
    text: str
    value: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The workload and client of records whose source names none."""

    workload_id: str
    client_id: str


NO_DEFAULTS = Defaults("", "")


@dataclass(frozen=True, slots=True)
class Input:
    """A file to load."""

    place: str  # a path or an fsspec URL
    source: str | None = None  # detected if ``None``
    kind: Kind = "interactions"  # what records are that no source claims
    defaults: Defaults = NO_DEFAULTS

    @property
    def stored_place(self) -> str:
        """Return the place as a table accepts it: a file's name may have bytes not in UTF-8.

        Without the secrets of a URL: it is shown to who may not read the workload's file.
        """
        place = self.place.encode(errors="surrogateescape").decode(errors="backslashreplace")
        return without_secrets(place)


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """A canonical record that a source read from a row; SQL validates it later."""

    row: SourceRow  # stored with it: the part it came from if that can be cut out, else the row
    kind: Kind
    record: dict[str, Json]


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A row that a source can't read; ``reason`` names the field, its value and the expectation."""

    row: SourceRow
    reason: str


SourceRecord: TypeAlias = ParsedRecord | RejectedRecord


class Source(Protocol):
    """A module that ``components.collect.importers`` names."""

    @property
    def NAME(self) -> str:  # noqa: N802 - modules write their constants so
        """The source's name in config and ``raw``."""
        ...

    def claims(self, value: dict[str, Json], /) -> bool:
        """Return whether a record has this source's form; pure and cheap."""
        ...

    def read(self, rows: Iterable[SourceRow], defaults: Defaults, /) -> Iterator[SourceRecord]:
        """Yield canonical records, streaming; bad rows yield ``RejectedRecord`` and never raise."""
        ...


CallKey: TypeAlias = tuple[str, str]
"""Trace and span of a model's call; the span is empty for log records without one."""


@dataclass(slots=True)
class HeldBack:
    """Calls that may still be completed, since their parts only came lately."""

    since: int
    """The place of the first row that came lately."""

    rows: list[SourceRow] = field(default_factory=list[SourceRow])
    """The parts of such calls, in the order of their places: to be read again with what follows."""

    calls: int = 0


@dataclass(slots=True)
class LoadedCalls:
    """Calls that became interactions, each with the digests of its parts: earlier, and now."""

    earlier: Mapping[CallKey, frozenset[bytes]]
    now: dict[CallKey, frozenset[bytes]] = field(default_factory=dict[CallKey, frozenset[bytes]])

    def late_parts(self, key: CallKey, parts: frozenset[bytes]) -> frozenset[bytes] | None:
        """Return those of a call's parts that it was loaded without; ``None`` if it may be read.

        A call that was not loaded before may be, and the whole of one that was: it is known.
        """
        earlier = self.earlier.get(key, parts)
        return None if earlier == parts else parts - earlier


class TelemetrySource(Source, Protocol):
    """The source of the telemetry that a receiver took, of which several requests make a call."""

    def call_keys(self, value: dict[str, Json], /) -> Iterator[CallKey]:
        """Yield trace and span of the parts of a request that have both."""
        ...

    def read(
        self,
        rows: Iterable[SourceRow],
        defaults: Defaults,
        held: HeldBack | None = None,
        loaded: LoadedCalls | None = None,
        /,
    ) -> Iterator[SourceRecord]:
        """Yield records; calls that may still be completed are added to ``held``.

        A call that was ``loaded`` from other parts is rejected.
        """
        ...
