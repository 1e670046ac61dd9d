"""Leave out training rows that overlap the holdout or guard tasks: shared n-grams, paraphrases."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.curate.near import cosines, nearest_texts, shared_text
from components.curate.near.hashed_words import DigestedWords, Marks, Positions, TextColumn
from components.curate.near.nearest_texts import Nearest
from components.curate.settings import Overlap
from components.schema import PARAPHRASE, Json, Paraphrases
from components.store import unpacked_file

THREADS = 2

MAX_COMPARED = 1000
"""Held-out rows of which the share with a paraphrase among the training rows is counted."""


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
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches():
                    yield from batch.to_pylist()
        else:
            yield from (row for _, row in unpacked_file.read_json(Path(path)))
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
    """The ids of rows and their users' words: ``own`` without templates, ``whole`` with them.

    Where ``are_fixed``, the own words are a question about many documents in system messages: a
    template, too.
    """

    ids: TextColumn
    own: DigestedWords
    whole: DigestedWords
    are_fixed: Marks | None = None

    def telling(self, rows: Positions) -> Positions:
        """Return those of some rows whose own words tell them from others."""
        return rows if self.are_fixed is None else rows[~self.are_fixed[rows]]


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
        find = partial(_overlaps, settings=settings, pool=pool)
        tested = find(asked.whole, rows, guards, "overlaps_guard")
        telling, held_out = asked.telling(rows), asked.telling(held_out)
        tested |= find(asked.own, telling, _references(asked, held_out), "overlaps_holdout")
        is_left, is_validated = (np.zeros(len(asked.ids), np.bool_) for _ in range(2))
        is_left[telling], is_validated[validated] = True, True
        is_left[[*tested]] = False
        of_validation = _references(asked, np.flatnonzero(is_left & is_validated))
        learned = np.flatnonzero(is_left & ~is_validated)
        return find(asked.own, learned, of_validation, "overlaps_validation") | tested


def count_paraphrased(asked: AskedTexts, trained: Positions, held_out: Positions) -> Paraphrases:
    """Count the held-out rows that a row to train on paraphrases.

    Of more than ``MAX_COMPARED`` those with the smallest digests are compared, so that the time
    grows with the rows to train on alone.
    """
    chosen = np.argsort(asked.own.digests[held_out, 0], kind="stable")[:MAX_COMPARED]
    held_out = held_out[chosen]
    tested, learned = (asked.own.words.at(asked.telling(rows)) for rows in (held_out, trained))
    with ThreadPoolExecutor(THREADS) as pool:
        are_alike = cosines.have_alike(tested, learned, PARAPHRASE, pool)
    return Paraphrases(len(held_out), int(are_alike.sum()))


class _References(NamedTuple):
    """Texts of different words, with the name of the first of each."""

    texts: DigestedWords
    names: Sequence[str]


def _guards(settings: Overlap) -> _References:
    documents = [*chain.from_iterable(map(read_documents, settings.guards))]
    texts = pa.array([text for _, text in documents], pa.large_string())
    own = DigestedWords.of(shared_text.own_words(texts))
    firsts = own.numbered()[1]
    return _References(own.at(firsts), [documents[first][0] for first in firsts.tolist()])


def _references(asked: AskedTexts, rows: Positions) -> _References:
    texts = asked.own.at(rows)
    firsts = texts.numbered()[1]
    return _References(texts.at(firsts), asked.ids.take(rows[firsts]).to_pylist())


def _overlaps(
    texts: DigestedWords,
    rows: Positions,
    references: _References,
    objection: str,
    *,
    settings: Overlap,
    pool: Executor,
) -> dict[int, Seen]:
    if not len(rows) or not len(references.texts):
        return {}
    ours = texts.at(rows)
    numbers, firsts = ours.numbered()
    ours = ours.at(firsts)
    overlaps: dict[int, Seen] = {}
    if settings.paraphrases is not None:
        near = cosines.nearest_by_cosine(ours.words, references.texts.words, pool)
        overlaps |= _above(near, settings.paraphrases, references.names, objection, "a cosine of")
    near = nearest_texts.nearest_by_ngrams(ours.words, references.texts, settings.words, pool)
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
