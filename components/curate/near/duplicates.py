"""Cluster near-duplicate texts by their verified Jaccard similarity."""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from components.curate.near import candidate_pairs, shingles
from components.curate.near.candidate_pairs import CandidatePairs, Groups
from components.curate.near.shingles import (
    HASH_BITS,
    TEXT_BITS,
    Hashes,
    Positions,
    TextColumn,
    Texts,
)
from components.curate.settings import THRESHOLD

JACCARDS_AT_ONCE = 4096


def jaccards(texts: TextColumn, pairs: CandidatePairs, pool: Executor) -> npt.NDArray[np.float64]:
    """Give each pair's shared shingles over all shingles of the two; 0 where there are none.

    Args:
        texts: All texts.
        pairs: Places among the texts.
        pool: Where blocks of pairs are computed beside each other.
    """
    places, ends = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = ends[: len(pairs)], ends[len(pairs) :]
    rows = _rows(Texts.of(texts.take(places)), pool)
    sizes = np.diff(rows.indptr)
    blocks = range(0, len(pairs), JACCARDS_AT_ONCE)
    found = list(pool.map(partial(_shared, rows, left, right), blocks))
    shared = np.concatenate([np.zeros(0, np.int64), *found])
    return shared / np.maximum(sizes[left] + sizes[right] - shared, 1)


def _shared(rows: sparse.csr_matrix, left: Positions, right: Positions, start: int) -> Positions:
    """Count the shingles that each pair of a block shares."""
    block = slice(start, start + JACCARDS_AT_ONCE)
    return rows[left[block]].multiply(rows[right[block]]).getnnz(axis=1)


def _rows(texts: Texts, pool: Executor) -> sparse.csr_matrix:
    """Write each text's set of shingles as a row of ones; a column is a hash."""
    found = list(pool.map(shingles.distinct, texts.chunks()))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(one for one, _ in found)]).view(np.int64)
    sizes = np.concatenate([np.zeros(1, np.int64), *(one for _, one in found)])
    shape = (len(texts), 1 << HASH_BITS)
    return sparse.csr_matrix((np.ones(len(hashes), np.bool_), hashes, np.cumsum(sizes)), shape)


INSIDE = 8
AT_AN_END = 4
"""A passage is so many triples in a row that the other text has not: six words inside of a text,
four where it begins or ends, which is where questions stand."""

PAIRS_AT_ONCE = 1024

_NO_KEY = np.uint64((1 << 64) - 1)


def replaced(texts: TextColumn, pairs: CandidatePairs, pool: Executor) -> npt.NDArray[np.bool_]:
    """Mark the pairs of which each text has a passage that the other has not."""
    blocks = range(0, len(pairs), PAIRS_AT_ONCE)
    found = pool.map(partial(_replaced, texts, pairs), blocks)
    return np.concatenate([np.zeros(0, np.bool_), *found])


def _replaced(texts: TextColumn, pairs: CandidatePairs, start: int) -> npt.NDArray[np.bool_]:
    block = slice(start, start + PAIRS_AT_ONCE)
    one, its_owners = _triples(texts.take(pairs.left[block]))
    other, their_owners = _triples(texts.take(pairs.right[block]))
    count = len(pairs.left[block])
    return _passages(one, other, its_owners, count) & _passages(other, one, their_owners, count)


def _triples(texts: TextColumn) -> tuple[Hashes, Positions]:
    """Give each text's triples in their order, marked with the text, and the texts' places."""
    keys, owners, before = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for chunk in Texts.of(texts).chunks():
        words = shingles.words_of(chunk)
        words.hashes[shingles.have_digits(chunk, words)] = 0
        found = shingles.runs(words, shingles.WIDTH, whole=True)
        places = np.repeat(np.arange(len(chunk)) + before, np.diff(found.bounds))
        keys.append((places.astype(np.uint64) << np.uint64(HASH_BITS)) | found.hashes)
        owners.append(places)
        before += len(chunk)
    return np.concatenate(keys), np.concatenate(owners)


def _passages(keys: Hashes, others: Hashes, owners: Positions, count: int) -> npt.NDArray[np.bool_]:
    """Mark the texts that have a passage of triples which are not among the others."""
    others = np.append(np.sort(others), _NO_KEY)
    missing = others[np.searchsorted(others, keys)] != keys
    edges = np.concatenate([[True], owners[1:] != owners[:-1], [True]])[: len(owners) + 1]
    begins = np.flatnonzero(np.concatenate([missing[:1], _starts(missing, edges)]))
    ends = np.flatnonzero(np.concatenate([_starts(missing[::-1], edges[::-1])[::-1], missing[-1:]]))
    lengths = ends - begins + 1
    at_an_end = edges[begins] | edges[ends + 1]
    long = lengths >= np.where(at_an_end, AT_AN_END, INSIDE)
    found = np.zeros(count, np.bool_)
    found[owners[begins[long]]] = True
    return found


def _starts(missing: npt.NDArray[np.bool_], edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark where a row of missing ones begins, but for the first place."""
    return missing[1:] & (~missing[:-1] | edges[1:-1])


THREADS = 2


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which texts are near each other.

    ``cluster_ids`` has for each text, in the order given, the smallest id of the texts that a chain
    of pairs joins it to: its own if there are none. ``left``, ``right`` (ids) and ``jaccard`` are
    the pairs that were verified. Of equal texts these are only the pairs with the first, of a crowd
    (``candidates.CROWD``) only those with its typical texts.
    """

    cluster_ids: list[str]
    left: list[str]
    right: list[str]
    jaccard: npt.NDArray[np.float64]


def find_clusters(
    ids: Sequence[str], texts: Sequence[str], threshold: float = THRESHOLD
) -> Clusters:
    """Join texts that have most of their word shingles in common to clusters.

    Two texts are a pair if the Jaccard of their sets of shingles is ``threshold`` or more, or if
    they are equal. No pair is missed, and none counts whose Jaccard was not computed in full; only
    in crowds not all are looked at (see ``candidates``). The order of the input does not matter.

    Args:
        ids: An id each, all different.
        texts: The texts; one without a word is only near to its equals.
        threshold: Above 0, up to 1.
    """
    names = np.array([*ids], dtype=object)
    order = np.argsort(names, kind="stable")
    encoded = pa.array(texts, pa.large_string()).take(order).dictionary_encode()
    places = encoded.indices.to_numpy()
    firsts = np.unique(places, return_index=True)[1]
    repeats = np.flatnonzero(firsts[places] != np.arange(len(places)))
    equal = CandidatePairs(firsts[places[repeats]], repeats)
    with ThreadPoolExecutor(THREADS) as pool:
        near, values = _near(encoded.dictionary, threshold, pool)
    pairs = equal.joined(CandidatePairs(firsts[near.left], firsts[near.right]))
    labels = _components(pairs, len(ids))
    smallest = np.unique(labels, return_index=True)[1][labels]
    cluster_ids = np.empty(len(ids), np.int64)
    cluster_ids[order] = order[smallest]
    return Clusters(
        names[cluster_ids].tolist(),
        names[order[pairs.left]].tolist(),
        names[order[pairs.right]].tolist(),
        np.concatenate([np.ones(len(equal)), values]),
    )


def without_replaced(ids: Sequence[str], texts: Sequence[str], found: Clusters) -> list[str]:
    """Join texts as ``find`` did, but not those of which a whole passage differs.

    Args:
        ids: An id each, as given to ``find``.
        texts: The texts.
        found: What ``find`` gave for them.

    Returns:
        For each text the smallest id of those that it is joined to.
    """
    places = {name: place for place, name in enumerate(ids)}
    pairs = CandidatePairs(
        np.array([places[name] for name in found.left], np.int64),
        np.array([places[name] for name in found.right], np.int64),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        marks = replaced(pa.array(texts, pa.large_string()), pairs, pool)
    smallest: dict[int, str] = {}
    labels = _components(pairs.where(~marks), len(ids)).tolist()
    for label, name in zip(labels, ids, strict=True):
        smallest[label] = min(name, smallest.get(label, name))
    return [smallest[label] for label in labels]


def _near(
    texts: TextColumn, threshold: float, pool: Executor
) -> tuple[CandidatePairs, npt.NDArray[np.float64]]:
    """Give the pairs of different texts whose Jaccard reaches the threshold, with it."""
    groups = _grouped(texts, threshold, pool)
    found, values = CandidatePairs.none(), [np.zeros(0)]

    def verify(pairs: CandidatePairs) -> CandidatePairs:
        their = jaccards(texts, pairs, pool)
        values.append(their[their >= threshold])
        return found.joined(pairs.where(their >= threshold))

    for pairs in candidate_pairs.in_small_groups(groups):
        found = verify(pairs)
    for pairs in candidate_pairs.in_crowds(groups):
        labels = _components(found, len(texts))
        found = verify(pairs.where(labels[pairs.left] != labels[pairs.right]))
    return found, np.concatenate(values)


def _grouped(texts: TextColumn, threshold: float, pool: Executor) -> Groups:
    """Group the texts by what their prefixes share."""
    sample = texts.take(np.arange(0, len(texts), shingles.SAMPLED))
    order = shingles.shingle_order(Texts.of(sample), threshold, pool)
    text_bits = max(TEXT_BITS, len(texts).bit_length())
    before, entries, shared = 0, [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for part in pool.map(partial(shingles.choose_prefixes, order=order), Texts.of(texts).chunks()):
        owners = (part.owners + before).astype(np.uint64)
        entries.append((part.keys << np.uint64(text_bits)) | owners)
        shared.append(part.shared)
        before += len(part.shared)
    return candidate_pairs.group_by_key(np.concatenate(entries), text_bits, np.concatenate(shared))


def _components(pairs: CandidatePairs, count: int) -> Positions:
    """Number the connected texts: equal numbers for texts that a chain of pairs connects."""
    ones = np.ones(len(pairs), np.bool_)
    graph = sparse.coo_array((ones, (pairs.left, pairs.right)), (count, count))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
