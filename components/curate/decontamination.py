"""Leave out training rows that overlap the holdout or guard tasks: shared n-grams, paraphrases."""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from components.curate.near import shared_text, shingles, spilled_texts
from components.curate.near.shingles import HASH_BITS, Hashes, Positions, TextColumn, Texts
from components.curate.settings import Overlap
from components.schema import Json

_TABLE_BITS = 26


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each text the reference with the largest overlap (-1 if none), and its share."""

    references: Positions
    shares: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Index:
    """The references' runs; run i is in the references ``owners[bounds[i]:bounds[i + 1]]``.

    ``seen`` marks the first bits of the runs; ``counts`` is the number of runs per reference.
    """

    runs: Hashes
    bounds: Positions
    owners: Positions
    counts: Positions
    seen: npt.NDArray[np.bool_]
    shift: np.uint64


def nearest_by_ngrams(
    texts: TextColumn, references: TextColumn, words: int, pool: Executor
) -> Nearest:
    """Return each text's nearest reference by the share of common n-grams of the shorter text.

    An n-gram has ``words`` words.
    """
    find = partial(_nearest_in_index, index=_index(references, words, pool), words=words)
    return _joined(shingles.in_order(pool, find, Texts.of(texts).chunks()))


def _joined(chunks: Iterable[Nearest]) -> Nearest:
    parts = [Nearest(np.zeros(0, np.int64), np.zeros(0)), *chunks]
    return Nearest(
        np.concatenate([part.references for part in parts]),
        np.concatenate([part.shares for part in parts]),
    )


def _index(references: TextColumn, words: int, pool: Executor) -> _Index:
    cut = partial(shingles.distinct, width=words, whole=False)
    chunks = list(pool.map(cut, Texts.of(references).chunks()))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in chunks)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(sizes for _, sizes in chunks)])
    owners = np.repeat(np.arange(len(references)), sizes)
    order = np.argsort(hashes, kind="stable")
    runs, starts = np.unique(hashes[order], return_index=True)
    shift = np.uint64(HASH_BITS - min(_TABLE_BITS, 4 + len(runs).bit_length()))
    seen = np.zeros(1 << (HASH_BITS - int(shift)), np.bool_)
    seen[(runs >> shift).astype(np.int64)] = True
    bounds = np.append(starts, len(order))
    return _Index(runs, bounds, owners[order], sizes, seen, shift)


def _nearest_in_index(texts: Texts, index: _Index, words: int) -> Nearest:
    hashes, sizes = shingles.distinct(texts, words, whole=False)
    owners = np.repeat(np.arange(len(texts)), sizes)
    maybe = np.flatnonzero(index.seen[(hashes >> index.shift).astype(np.int64)])
    at = np.searchsorted(index.runs, hashes[maybe])
    at = np.minimum(at, max(len(index.runs) - 1, 0))
    met = index.runs[at] == hashes[maybe] if len(index.runs) else np.zeros(len(at), np.bool_)
    at, owners = at[met], owners[maybe[met]]
    many = index.bounds[at + 1] - index.bounds[at]
    places = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
    theirs = index.owners[places + np.repeat(index.bounds[at], many)]
    pairs, shared = np.unique(
        np.repeat(owners, many) * len(index.counts) + theirs, return_counts=True
    )
    ours, theirs = np.divmod(pairs, max(len(index.counts), 1))
    shares = shared / np.minimum(sizes[ours], index.counts[theirs])
    return keep_best(ours, theirs, shares, len(texts))


def keep_best(
    texts: Positions, references: Positions, shares: npt.NDArray[np.float64], count: int
) -> Nearest:
    """Keep the highest share of each text; ties go to the first reference."""
    order = np.lexsort((references, -shares, texts))
    named, first = np.unique(texts[order], return_index=True)
    nearest = Nearest(np.full(count, -1), np.zeros(count))
    nearest.references[named] = references[order][first]
    nearest.shares[named] = shares[order][first]
    return nearest


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weight of each word of the references; other words weigh ``unknown``."""

    words: Hashes
    weights: npt.NDArray[np.float64]
    unknown: float


def nearest_by_cosine(texts: TextColumn, references: TextColumn, pool: Executor) -> Nearest:
    """Return each text's nearest reference by TF-IDF cosine."""
    counted = [_counted(chunk) for chunk in Texts.of(references).chunks()]
    weights = _weights(counted, len(references))
    theirs = sparse.vstack([_weighted_rows(part, weights) for part in counted], "csr").T.tocsr()
    find = partial(_nearest_by_weights, weights=weights, theirs=theirs)
    return _joined(shingles.in_order(pool, find, Texts.of(texts).chunks()))


def _nearest_by_weights(texts: Texts, weights: _Weights, theirs: sparse.csr_array) -> Nearest:
    cosines = sparse.coo_array(_weighted_rows(_counted(texts), weights).dot(theirs))
    ours, references = cosines.row.astype(np.int64), cosines.col.astype(np.int64)
    return keep_best(ours, references, np.array(cosines.data, np.float64), len(texts))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Word counts per text; text i has the next ``sizes[i]`` entries."""

    words: Hashes
    times: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


def _counted(texts: Texts) -> _Counted:
    words = shingles.shingle(texts, 1)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(words.bounds))
    keys, times = np.unique((owners << np.uint64(HASH_BITS)) | words.hashes, return_counts=True)
    mask = np.uint64((1 << HASH_BITS) - 1)
    sizes = np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(texts))
    return _Counted(keys & mask, times, sizes)


def _weights(counted: list[_Counted], count: int) -> _Weights:
    every = np.concatenate([np.zeros(0, np.uint64), *(chunk.words for chunk in counted)])
    words, having = np.unique(every, return_counts=True)
    return _Weights(words, 1 + np.log((1 + count) / (1 + having)), 1 + np.log(1 + count))


def _weighted_rows(counted: _Counted, weights: _Weights) -> sparse.csr_array:
    """Return each text as a row of norm 1, then without the words of no reference."""
    at = np.minimum(np.searchsorted(weights.words, counted.words), max(len(weights.words) - 1, 0))
    known = weights.words[at] == counted.words
    values = (1 + np.log(counted.times)) * np.where(known, weights.weights[at], weights.unknown)
    owners = np.repeat(np.arange(len(counted.sizes)), counted.sizes)
    lengths = np.sqrt(np.bincount(owners, values**2, minlength=len(counted.sizes)))
    shape = (len(counted.sizes), len(weights.words))
    values = (values / lengths[owners])[known]
    return sparse.csr_array((values, (owners[known], at[known])), shape)


COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
THREADS = 2


class UnreadableDocumentsError(ValueError):
    """Raised when a file of guard documents is unreadable; curation needs all tested texts."""


def read_documents(path: str) -> Iterator[tuple[str, str]]:
    """Yield the place (``file:row``) and the text of every string of every row, nested or not.

    Question and answer are separate documents, so that a training row with only the question
    overlaps with a whole document.
    """
    for number, row in enumerate(_rows(path), 1):
        for text in dict.fromkeys(_texts(row)):
            yield f"{Path(path).name}:{number}", text


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
            yield from _texts([*value.values()])
        case _:
            return


@dataclass(frozen=True, slots=True)
class Seen:
    """An overlap: the row's ``objection``, and the overlapped text and amount as ``mark``."""

    objection: str
    mark: str


class AskedTexts(NamedTuple):
    """The ids of rows and their users' texts: ``own`` without templates, ``whole`` with them.

    Copies of texts are kept in files of the folder ``scratch``, or in memory if it is ``None``.
    """

    ids: TextColumn
    own: TextColumn
    whole: TextColumn
    scratch: Path | None = None


def decontaminate(
    asked: AskedTexts,
    rows: Positions,
    held_out: Positions,
    settings: Overlap,
    validated: Positions | None = None,
) -> dict[int, Seen]:
    """Find the rows that overlap with the holdout, guard documents or the validation side.

    A template shared by the workload's requests is not an overlap with its holdout, but a guard
    task's question shared by many of them is an overlap with the task. The holdout takes precedence
    over guard documents, and these over the validation side.

    Args:
        asked: The texts, of which rows are places.
        rows: The rows that are not held out.
        held_out: The rows of the holdout.
        settings: The thresholds and the guard documents.
        validated: Those of ``rows`` that are of the validation side.
    """
    validated = np.zeros(0, np.int64) if validated is None else validated
    guards = _guards(settings)
    with ThreadPoolExecutor(THREADS) as pool:
        find = partial(_overlaps, settings=settings, pool=pool, scratch=asked.scratch)
        tested = find(asked.whole, rows, guards, "overlaps_guard")
        tested |= find(asked.own, rows, _references(asked, held_out), "overlaps_holdout")
        left = np.setdiff1d(rows, [*tested])
        of_validation = _references(asked, np.intersect1d(left, validated))
        learned = np.setdiff1d(left, validated)
        return find(asked.own, learned, of_validation, "overlaps_validation") | tested


class _References(NamedTuple):
    """Different texts, with the name of the first of each."""

    texts: TextColumn
    names: Sequence[str]


def _guards(settings: Overlap) -> _References:
    documents = [*chain.from_iterable(map(read_documents, settings.guards))]
    own_words = shared_text.own_words(text for _, text in documents)
    names: dict[str, str] = {}
    for name, text in documents:
        names.setdefault(own_words[text], name)
    return _References(pa.array([*names], pa.large_string()), [*names.values()])


def _references(asked: AskedTexts, rows: Positions) -> _References:
    texts = spilled_texts.at(asked.own, rows, asked.scratch)
    firsts = spilled_texts.numbered_texts(texts)[1]
    names = asked.ids.take(rows[firsts]).to_pylist()
    return _References(spilled_texts.at(texts, firsts, asked.scratch), names)


def _overlaps(
    texts: TextColumn,
    rows: Positions,
    references: _References,
    objection: str,
    *,
    settings: Overlap,
    pool: Executor,
    scratch: Path | None,
) -> dict[int, Seen]:
    if not len(rows) or not len(references.texts):
        return {}
    ours = spilled_texts.at(texts, rows, scratch)
    numbers, firsts = spilled_texts.numbered_texts(ours)
    ours = spilled_texts.at(ours, firsts, scratch)
    overlaps: dict[int, Seen] = {}
    if settings.paraphrases is not None:
        near = nearest_by_cosine(ours, references.texts, pool)
        overlaps |= _above(near, settings.paraphrases, references.names, objection, "a cosine of")
    near = nearest_by_ngrams(ours, references.texts, settings.words, pool)
    overlaps |= _above(near, settings.share, references.names, objection, "a share of")
    named = zip(rows.tolist(), numbers.tolist(), strict=True)
    return {row: overlaps[number] for row, number in named if number in overlaps}


def _above(
    near: Nearest, least: float, names: Sequence[str], objection: str, measure: str
) -> dict[int, Seen]:
    """Return the overlap of each text whose share is at least ``least``."""
    places = np.flatnonzero(near.shares >= least).tolist()
    references, shares = near.references.tolist(), near.shares.tolist()
    return {
        place: Seen(objection, f"{names[references[place]]}, {measure} {shares[place]:.2f}")
        for place in places
    }
