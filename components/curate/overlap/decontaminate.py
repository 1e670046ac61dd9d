"""Say which rows to train on have been seen in what is tested on, and where."""

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from components.curate.overlap import documents, ngrams, paraphrases
from components.curate.overlap.ngrams import Nearest
from components.curate.overlap.settings import Overlap

THREADS = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """Why a row is not trained on: ``objection``, and in ``mark`` in which text it was seen."""

    objection: str
    mark: str


def decontaminate(
    rows: Mapping[str, str], held_out: Mapping[str, str], settings: Overlap
) -> dict[str, Seen]:
    """Find the rows that overlap with the holdout or with a guard task's documents.

    Args:
        rows: What users said in each row to train on, by its id.
        held_out: Those of the rows of the holdout.
        settings: What is too much, and the guard documents.

    Returns:
        The rows to leave out; those that overlap with both name the holdout.
    """
    found = chain.from_iterable(documents.read(path) for path in settings.guards)
    guards = [(document.name, document.text) for document in found]
    with ThreadPoolExecutor(THREADS) as pool:
        of_guards = _seen(rows, guards, "overlaps_guard", settings, pool)
        of_holdout = _seen(rows, [*held_out.items()], "overlaps_holdout", settings, pool)
    return of_guards | of_holdout


def _seen(
    rows: Mapping[str, str],
    references: list[tuple[str, str]],
    objection: str,
    settings: Overlap,
    pool: Executor,
) -> dict[str, Seen]:
    if not rows or not references:
        return {}
    ours = pa.array([*rows.values()], pa.large_string())
    theirs = pa.array([text for _, text in references], pa.large_string())
    names = [name for name, _ in references]
    found: dict[str, Seen] = {}
    if settings.paraphrases is not None:
        near = paraphrases.nearest(ours, theirs, pool)
        found |= _above(rows, near, settings.paraphrases, names, objection, "a cosine of")
    near = ngrams.nearest(ours, theirs, settings.words, pool)
    return found | _above(rows, near, settings.share, names, objection, "a share of")


def _above(
    rows: Mapping[str, str],
    near: Nearest,
    least: float,
    names: list[str],
    objection: str,
    measure: str,
) -> dict[str, Seen]:
    """Name the rows whose share is at least ``least``."""
    found = zip(rows, near.references.tolist(), near.shares.tolist(), strict=True)
    return {
        row: Seen(objection, f"{names[reference]}, {measure} {share:.2f}")
        for row, reference, share in found
        if share >= least
    }
