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


class UnreadableDocumentsError(ValueError):
    """A file of guard documents that can't be read: what is tested on must be known in full."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text that is tested on, and where it stands: ``file:row``."""

    name: str
    text: str


def read_documents(path: str) -> Iterator[Document]:
    """Give every text of every row, also those in lists and objects, each as a document.

    A question and its answer are two: a training row that has the question only overlaps with all
    of it.

    Raises:
        UnreadableDocumentsError: A line is not a JSON object, or the file is no Parquet.
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
            f"reading the guard documents of {path}: {error}; wants JSON lines (.jsonl, .jsonl.gz, "
            ".jsonl.zst) or Parquet"
        ) from error


def _texts(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for one in value.values():
                yield from _texts(one)
        case _:
            return


THREADS = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """Why a row is not trained on: ``objection``, and in ``mark`` in which text it was seen."""

    objection: str
    mark: str


@dataclass(frozen=True, slots=True)
class UserTexts:
    """What users said in a row: their ``own`` words, and the ``whole``, templates included."""

    own: str
    whole: str


def decontaminate(
    rows: Mapping[str, UserTexts],
    held_out: Mapping[str, str],
    settings: Overlap,
    validated: Collection[str] = (),
) -> dict[str, Seen]:
    """Find the rows that overlap with the holdout or with a guard task's documents.

    A template that the workload's requests have in common is no overlap with its holdout, but a
    guard task's question that many of them have in common is one with the task. Rows to train on
    that overlap with what is left of the validation side are found, too.

    Args:
        rows: What users said in each row that is not held out, by its id.
        held_out: What they said in the rows of the holdout, templates left out.
        settings: What is too much, and the guard documents.
        validated: The ids of the rows that are validated on.

    Returns:
        The rows to leave out; those that overlap with several name the holdout, else a guard task.
    """
    found = chain.from_iterable(read_documents(path) for path in settings.guards)
    guards = _without_templates([(document.name, document.text) for document in found])
    whole = {row: asked.whole for row, asked in rows.items()}
    own = {row: asked.own for row, asked in rows.items()}
    with ThreadPoolExecutor(THREADS) as pool:
        of_guards = _seen(whole, guards, "overlaps_guard", settings, pool)
        of_holdout = _seen(own, [*held_out.items()], "overlaps_holdout", settings, pool)
        tested = of_guards | of_holdout
        left = {row: text for row, text in own.items() if row not in tested}
        validation = [(row, text) for row, text in left.items() if row in validated]
        learned = {row: text for row, text in left.items() if row not in validated}
        of_validation = _seen(learned, validation, "overlaps_validation", settings, pool)
    return of_validation | tested


def _without_templates(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    parted = shared_text.part({text: () for _, text in named})
    return [(name, parted[text].own) for name, text in named]


def _seen(
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
    found: dict[str, Seen] = {}
    if settings.paraphrases is not None:
        near = nearest_texts.nearest_by_cosine(ours, theirs, pool)
        found |= _above(texts, near, settings.paraphrases, names, objection, "a cosine of")
    near = nearest_texts.nearest_by_ngrams(ours, theirs, settings.words, pool)
    found |= _above(texts, near, settings.share, names, objection, "a share of")
    return {row: found[text] for row, text in rows.items() if text in found}


def _above(
    texts: Sequence[str],
    near: Nearest,
    least: float,
    names: list[str],
    objection: str,
    measure: str,
) -> dict[str, Seen]:
    """Name for each text whose share is at least ``least`` where it was seen."""
    found = zip(texts, near.references.tolist(), near.shares.tolist(), strict=True)
    return {
        text: Seen(objection, f"{names[reference]}, {measure} {share:.2f}")
        for text, reference, share in found
        if share >= least
    }
