"""What a canary's arms answered, a line each, in a file that only grows: no texts.

The gateway writes a line with one call, so that it is in the file after a kill; it does not wait
for the disk, so that a power failure may lose the last ones. Times are seconds that the canary has
run: neither a jump of the clock nor a gateway that is down changes them.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast, get_args

import orjson

from components.schema import Json
from components.serve.rollout import Arm
from components.serve.rollout_settings import BadKind

MAX_PENDING = 4 * 2**20  # bytes that wait for room on the disk
LONGEST_LINE = 1_000  # bytes
LONGEST_TIME = 1e10  # seconds

KINDS = frozenset[str](get_args(BadKind))
ARMS = frozenset[str](get_args(Arm))


@dataclass(frozen=True, slots=True)
class AnswerLine:
    """An answer, or a failure to answer, of a conversation that was drawn.

    The first line of a conversation is its draw, with neither kinds nor an answer.
    """

    elapsed: float
    conversation: str
    share: float
    arm: Arm
    kinds: frozenset[BadKind]
    answer_id: str | None
    """``None`` if a fallback answered, or nobody: feedback to it counts for neither."""
    asker: tuple[str, ...] = ()
    """The client and, if it named one, its user, as keyed hashes; of a draw."""


@dataclass(frozen=True, slots=True)
class DislikeLine:
    """Feedback against an answer."""

    elapsed: float
    answer_id: str


@dataclass(frozen=True, slots=True)
class PairLine:
    """What was bad about the two answers to a request that was shadowed."""

    elapsed: float
    conversation: str
    canary: frozenset[BadKind]
    champion: frozenset[BadKind]


@dataclass(frozen=True, slots=True)
class ClockLine:
    """The time, where nothing else happened."""

    elapsed: float


EvidenceLine: TypeAlias = AnswerLine | DislikeLine | PairLine | ClockLine


class EvidenceFullError(OSError):
    """More lines wait for room on the disk than are kept."""


def to_bytes(line: EvidenceLine) -> bytes:
    """Return the line as it stands in the file."""
    fields: dict[str, Json] = {"t": round(line.elapsed, 3)}
    match line:
        case AnswerLine():
            fields |= {"c": line.conversation, "s": line.share, "a": line.arm}
            fields |= {"b": _names(line.kinds)} if line.kinds else {}
            fields |= {"r": line.answer_id} if line.answer_id is not None else {}
            fields |= {"w": [*line.asker]} if line.asker else {}
        case DislikeLine():
            fields["f"] = line.answer_id
        case PairLine():
            fields |= {"c": line.conversation, "x": _names(line.canary), "y": _names(line.champion)}
        case ClockLine():
            pass
    return orjson.dumps(fields) + b"\n"


def read_line(content: bytes) -> EvidenceLine | None:
    """Return a line; ``None`` if a crash cut it, or somebody else wrote it."""
    if len(content) > LONGEST_LINE:
        return None
    try:
        fields = cast(Json, orjson.loads(content))
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    elapsed = _time(fields.get("t"))
    if elapsed is None:
        return None
    match fields:
        case {"c": str(conversation), "s": float(share), "a": str(arm)} if (
            0 < share < 1 and arm in ARMS
        ):
            kinds, answer_id = _kinds(fields.get("b", [])), fields.get("r")
            if kinds is None or not (answer_id is None or isinstance(answer_id, str)):
                return None
            asker = fields.get("w", [])
            if not isinstance(asker, list) or "" in (names := _texts(asker)):
                return None
            return AnswerLine(
                elapsed, conversation, share, cast("Arm", arm), kinds, answer_id, tuple(names)
            )
        case {"c": str(conversation), "x": canary, "y": champion}:
            both = _kinds(canary), _kinds(champion)
            if both[0] is None or both[1] is None:
                return None
            return PairLine(elapsed, conversation, both[0], both[1])
        case {"f": str(answer_id)}:
            return DislikeLine(elapsed, answer_id)
        case _:
            return ClockLine(elapsed) if fields.keys() == {"t"} else None


def read_lines(path: Path, most_bytes: int | None = None) -> Iterator[EvidenceLine]:
    """Yield the readable lines of a file, if there is one, or of its first bytes."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        is_whole = True  # whether a line begins here
        while content := file.readline(LONGEST_LINE + 1):
            if most_bytes is not None and file.tell() > most_bytes:
                return
            is_end = content.endswith(b"\n")
            if is_whole and is_end and (line := read_line(content)) is not None:
                yield line
            is_whole = is_end


class EvidenceFile:
    """Appends to a canary's file; lines for which there is no room wait in memory.

    Raises:
        OSError: The file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        size = os.fstat(self._file).st_size
        is_cut = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._pending = bytearray(b"\n" if is_cut else b"")  # a crash cut the last line
        self.path = path

    def append(self, line: EvidenceLine) -> None:
        """Write a line; raise ``EvidenceFullError`` if too many wait."""
        if len(self._pending) > MAX_PENDING:
            raise EvidenceFullError(f"writing {self.path}: {len(self._pending)} bytes wait")
        self._pending += to_bytes(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        if self._pending:
            with contextlib.suppress(OSError):
                written = os.write(self._file, self._pending)
                del self._pending[:written]

    @property
    def is_behind(self) -> bool:
        """Whether lines wait."""
        return bool(self._pending)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        os.close(self._file)


def _time(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < LONGEST_TIME else None


def _names(kinds: frozenset[BadKind]) -> list[Json]:
    return [*sorted(kinds)]


def _kinds(value: Json) -> frozenset[BadKind] | None:
    if not isinstance(value, list) or not all(kind in KINDS for kind in _texts(value)):
        return None
    return frozenset(cast("list[BadKind]", value))


def _texts(value: list[Json]) -> list[str]:
    return [each if isinstance(each, str) else "" for each in value]
