"""Find rows that overlap the holdout, the validation side, or documents of guard tasks."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from components.curate.near import nearest_texts, shared_text
from components.curate.near.nearest_texts import Nearest
from components.curate.settings import Overlap
from components.schema import Json

COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
THREADS = 2


class UnreadableDocumentsError(ValueError):
    """Raised when a file of guard documents is unreadable; curation needs all tested texts."""


@dataclass(frozen=True, slots=True)
class Document:
    """One tested text and its place, ``file:row``."""

    name: str
    text: str


def read_documents(path: str) -> Iterator[Document]:
    """Yield every string of every row, nested ones included, as a document of its own.

    Question and answer are separate documents, so that a training row with only the question
    overlaps with a whole document.

    Raises:
        UnreadableDocumentsError: The file is unreadable: neither JSON lines nor Parquet.
    """
    for number, row in enumerate(_rows(path), 1):
        for text in dict.fromkeys(_texts(row)):
            yield Document(f"{Path(path).name}:{number}", text)


def _rows(path: str) -> Iterator[Json]:
    try:
        if path.endswith(".parquet"):
            with fsspec.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches():
                    yield from batch.to_pylist()
        else:
            packed = COMPRESSION.get(Path(path).suffix)
            with fsspec.open(path, "rt", compression=packed, encoding="utf-8") as lines:
                yield from map(json.loads, filter(str.strip, lines))
    except (ValueError, OSError) as error:
        raise UnreadableDocumentsError(
            f"reading the guard documents of {path}: {error}; expected JSON lines (.jsonl, "
            ".jsonl.gz, .jsonl.zst) or Parquet"
        ) from error


def _texts(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for item in value.values():
                yield from _texts(item)
        case _:
            return


@dataclass(frozen=True, slots=True)
class Seen:
    """An overlap: the row's ``objection``, and the overlapped text and amount as ``mark``."""

    objection: str
    mark: str


@dataclass(frozen=True, slots=True)
class UserTexts:
    """The users' text of a row: ``own`` without templates, ``whole`` with them."""

    own: str
    whole: str


def decontaminate(
    rows: Mapping[str, UserTexts],
    held_out: Mapping[str, str],
    settings: Overlap,
    validated: Collection[str] = (),
) -> dict[str, Seen]:
    """Find the rows that overlap with the holdout, guard documents or the validation side.

    A template shared by the workload's requests is not an overlap with its holdout, but a guard
    task's question shared by many of them is an overlap with the task.

    Args:
        rows: The users' texts of each row that is not held out, by id.
        held_out: The users' texts of the holdout rows, without templates.
        settings: The thresholds and the guard documents.
        validated: The ids of the validation rows.

    Returns:
        The rows to leave out. Of several overlaps the holdout is named, else a guard task, else
        the validation side.
    """
    documents = chain.from_iterable(read_documents(path) for path in settings.guards)
    guards = _without_templates([(document.name, document.text) for document in documents])
    whole = {row: asked.whole for row, asked in rows.items()}
    own = {row: asked.own for row, asked in rows.items()}
    with ThreadPoolExecutor(THREADS) as pool:
        of_guards = _overlaps(whole, guards, "overlaps_guard", settings, pool)
        of_holdout = _overlaps(own, [*held_out.items()], "overlaps_holdout", settings, pool)
        tested = of_guards | of_holdout
        left = {row: text for row, text in own.items() if row not in tested}
        validation = [(row, text) for row, text in left.items() if row in validated]
        learned = {row: text for row, text in left.items() if row not in validated}
        of_validation = _overlaps(learned, validation, "overlaps_validation", settings, pool)
    return of_validation | tested


def _without_templates(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    parted = shared_text.split_shared({text: () for _, text in named})
    return [(name, parted[text].own) for name, text in named]


def _overlaps(
    rows: Mapping[str, str],
    references: list[tuple[str, str]],
    objection: str,
    settings: Overlap,
    pool: Executor,
) -> dict[str, Seen]:
    if not rows or not references:
        return {}
    texts = [*dict.fromkeys(rows.values())]
    first: dict[str, str] = {}
    for name, text in references:
        first.setdefault(text, name)
    ours = pa.array(texts, pa.large_string())
    theirs = pa.array([*first], pa.large_string())
    names = [*first.values()]
    overlaps: dict[str, Seen] = {}
    if settings.paraphrases is not None:
        near = nearest_texts.nearest_by_cosine(ours, theirs, pool)
        overlaps |= _above(texts, near, settings.paraphrases, names, objection, "a cosine of")
    near = nearest_texts.nearest_by_ngrams(ours, theirs, settings.words, pool)
    overlaps |= _above(texts, near, settings.share, names, objection, "a share of")
    return {row: overlaps[text] for row, text in rows.items() if text in overlaps}


def _above(
    texts: Sequence[str],
    near: Nearest,
    least: float,
    names: list[str],
    objection: str,
    measure: str,
) -> dict[str, Seen]:
    """Return the overlap of each text whose share is at least ``least``."""
    matches = zip(texts, near.references.tolist(), near.shares.tolist(), strict=True)
    return {
        text: Seen(objection, f"{names[reference]}, {measure} {share:.2f}")
        for text, reference, share in matches
        if share >= least
    }
