"""Say which rows have been seen in what is tested or validated on, and where."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from components.curate.near import templates
from components.curate.overlap import documents, ngrams, paraphrases
from components.curate.overlap.ngrams import Nearest
from components.curate.overlap.settings import Overlap

THREADS = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """Why a row is not trained on: ``objection``, and in ``mark`` in which text it was seen."""

    objection: str
    mark: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What users said in a row: their ``own`` words, and the ``whole``, templates included."""

    own: str
    whole: str


def decontaminate(
    rows: Mapping[str, Asked],
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
    found = chain.from_iterable(documents.read(path) for path in settings.guards)
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
    parted = templates.part({text: () for _, text in named})
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
        near = paraphrases.nearest(ours, theirs, pool)
        found |= _above(texts, near, settings.paraphrases, names, objection, "a cosine of")
    near = ngrams.nearest(ours, theirs, settings.words, pool)
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
