"""Cluster near-duplicate texts by their verified Jaccard similarity."""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from components.curate.near import candidate_pairs, hashed_words, prefixes, shingles, word_runs
from components.curate.near.candidate_pairs import CandidatePairs
from components.curate.near.hashed_words import (
    HAS_DIGIT,
    DigestedWords,
    Hashes,
    Positions,
    WordColumn,
    Words,
    in_order,
)
from components.curate.near.shingles import HASH_BITS
from components.curate.settings import THRESHOLD

JACCARDS_AT_ONCE = 4096
PAIRED_WORDS = 1 << 23  # of the texts of the pairs that are compared at once
LEAST_WORDS = 1 << 7  # of a text, so that fewer than 2^16 clusters are compared at once

DENSE = 16
"""Where a cluster has a pair for so many of all its pairs of texts, twice, all its texts are
multiplied with each other: a pair by itself costs a pass over both texts."""

THREADS = 2


def jaccards(texts: WordColumn, pairs: CandidatePairs, pool: Executor) -> npt.NDArray[np.float64]:
    """Return each pair's Jaccard similarity of shingle sets; 0 for texts without shingles."""
    # Pairs of one cluster together, so that each text is hashed once, though few are at a time.
    clusters = _components(pairs, len(texts))
    order = np.argsort(clusters[pairs.left], kind="stable")
    ordered = pairs.where(order)
    sizes = np.maximum(texts.sizes, LEAST_WORDS)
    of_pairs = sizes[ordered.left] + sizes[ordered.right]
    of_cluster = np.bincount(clusters, sizes)
    in_pairs = np.bincount(clusters[ordered.left], of_pairs, minlength=len(of_cluster))
    scale = np.minimum(1, of_cluster / np.maximum(in_pairs, LEAST_WORDS))
    parts = np.cumsum(of_pairs * scale[clusters[ordered.left]]) // PAIRED_WORDS
    starts = np.flatnonzero(np.diff(parts, prepend=-1)).tolist()
    values = np.empty(len(pairs))
    for start, stop in pairwise([*starts, len(pairs)]):
        part = slice(start, stop)
        values[order[part]] = _jaccards(texts, ordered.where(part), pool)
    return values


def _jaccards(texts: WordColumn, pairs: CandidatePairs, pool: Executor) -> npt.NDArray[np.float64]:
    places, ends = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = ends[: len(pairs)], ends[len(pairs) :]
    rows = _rows(texts.at(places), pool)
    clusters = _components(CandidatePairs(left, right), len(places))
    texts_in, pairs_in = np.bincount(clusters), np.bincount(clusters[left])
    dense = texts_in**2 <= DENSE * pairs_in
    together = dense[clusters[left]]
    shared = np.empty(len(pairs), np.int64)
    shared[together] = _shared_in_clusters(
        rows, np.where(dense[clusters], clusters, -1), left[together], right[together]
    )
    alone = partial(_shared, rows, left[~together], right[~together])
    blocks = range(0, int((~together).sum()), JACCARDS_AT_ONCE)
    shared[~together] = np.concatenate([np.zeros(0, np.int64), *in_order(pool, alone, blocks)])
    sizes = np.diff(rows.indptr)
    return shared / np.maximum(sizes[left] + sizes[right] - shared, 1)


def _shared_in_clusters(
    rows: sparse.csr_matrix, clusters: Positions, left: Positions, right: Positions
) -> Positions:
    """Count the shingles that pairs share by the product of all texts of a cluster.

    A text has a cluster's number, or -1 if it is in no pair. Of a shingle that most of a cluster's
    texts have, the texts that lack it are multiplied: those of a template differ in few.
    """
    if not len(left):
        return np.zeros(0, np.int64)
    texts = np.flatnonzero(clusters >= 0)
    numbers = np.unique(clusters[texts], return_inverse=True)[1]
    chosen = rows[texts]
    owners = np.repeat(np.arange(len(texts)), np.diff(chosen.indptr))
    # A cluster's shingles are its own columns, so that no other one's texts are multiplied.
    keys = (numbers[owners].astype(np.uint64) << np.uint64(HASH_BITS)) | chosen.indices.astype(
        np.uint64
    )
    order = np.argsort(keys)
    ordered, owners = keys[order], owners[order]
    starts = word_runs.starts_of(ordered)
    having = np.diff(starts, append=len(ordered))
    columns = np.repeat(np.arange(len(starts)), having)
    sizes = np.bincount(numbers)
    of_columns = numbers[owners[starts]]
    are_usual = 2 * having > sizes[of_columns]
    # A place for each text of the cluster of each usual shingle, in their order.
    grid = hashed_words.bounds_of(np.where(are_usual, sizes[of_columns], 0))
    by_cluster = np.argsort(numbers, kind="stable")
    begins = hashed_words.bounds_of(sizes)
    ranks = np.empty(len(texts), np.int64)
    ranks[by_cluster] = np.arange(len(texts)) - begins[numbers[by_cluster]]
    has_usual = are_usual[columns]
    are_lacking = np.ones(int(grid[-1]), np.bool_)
    are_lacking[grid[columns[has_usual]] + ranks[owners[has_usual]]] = False
    lacking = np.flatnonzero(are_lacking)
    lacked = np.searchsorted(grid, lacking, "right") - 1
    lackers = by_cluster[begins[of_columns[lacked]] + lacking - grid[lacked]]
    at = np.concatenate([owners[~has_usual], lackers])
    of = np.concatenate([columns[~has_usual], lacked])
    counted = sparse.csr_matrix((np.ones(len(at), np.int32), (at, of)), (len(texts), len(starts)))
    places = np.empty(len(clusters), np.int64)
    places[texts] = np.arange(len(texts))
    first, second = places[left], places[right]
    products = np.asarray((counted @ counted.T)[first, second], np.int64).ravel()
    usual = np.bincount(of_columns[are_usual], minlength=len(sizes))[numbers]
    lacks = np.bincount(lackers, minlength=len(texts))
    return products + usual[first] - lacks[first] - lacks[second]


def _shared(rows: sparse.csr_matrix, left: Positions, right: Positions, start: int) -> Positions:
    """Count the shingles that each pair of a block shares."""
    block = slice(start, start + JACCARDS_AT_ONCE)
    return rows[left[block]].multiply(rows[right[block]]).getnnz(axis=1)


def _rows(texts: WordColumn, pool: Executor) -> sparse.csr_matrix:
    """Return a matrix with a row per text, a column per shingle hash."""
    distinct = [*in_order(pool, _distinct, texts.chunks())]
    hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in distinct)])
    hashes = hashes.view(np.int64)
    sizes = np.concatenate([np.zeros(1, np.int64), *(sizes for _, sizes in distinct)])
    shape = (len(texts), 1 << HASH_BITS)
    return sparse.csr_matrix((np.ones(len(hashes), np.bool_), hashes, np.cumsum(sizes)), shape)


def _distinct(texts: WordColumn) -> tuple[Hashes, Positions]:
    return shingles.distinct(texts.words())


INSIDE = 8
AT_AN_END = 4
"""Triples in a row, missing in the other text, that make a passage: six words inside of a text,
four at its beginning or end, where questions usually are."""

PAIRS_AT_ONCE = 1024

_NO_KEY = np.uint64((1 << 64) - 1)


def replaced(texts: WordColumn, pairs: CandidatePairs, pool: Executor) -> npt.NDArray[np.bool_]:
    """Mark the pairs in which each text has a passage that the other lacks."""
    blocks = range(0, len(pairs), PAIRS_AT_ONCE)
    marks = in_order(pool, partial(_replaced, texts, pairs), blocks)
    return np.concatenate([np.zeros(0, np.bool_), *marks])


def _replaced(texts: WordColumn, pairs: CandidatePairs, start: int) -> npt.NDArray[np.bool_]:
    block = slice(start, start + PAIRS_AT_ONCE)
    left, left_owners = _triples(texts.at(pairs.left[block]))
    right, right_owners = _triples(texts.at(pairs.right[block]))
    count = len(pairs.left[block])
    return _passages(left, right, left_owners, count) & _passages(right, left, right_owners, count)


def _triples(texts: WordColumn) -> tuple[Hashes, Positions]:
    """Return the triples of all texts in order, tagged with their text, and the texts' indices.

    All words with a digit are equal.
    """
    words = texts.words()
    hashes = np.where((words.hashes & HAS_DIGIT) > 0, np.uint64(0), words.hashes)
    triples = shingles.shingle(Words(hashes, words.bounds))
    owners = np.repeat(np.arange(len(texts)), np.diff(triples.bounds))
    return (owners.astype(np.uint64) << np.uint64(HASH_BITS)) | triples.hashes, owners


def _passages(keys: Hashes, others: Hashes, owners: Positions, count: int) -> npt.NDArray[np.bool_]:
    """Mark the texts that have a passage of triples missing from ``others``."""
    others = np.append(np.sort(others), _NO_KEY)
    missing = others[np.searchsorted(others, keys)] != keys
    edges = np.concatenate([[True], owners[1:] != owners[:-1], [True]])[: len(owners) + 1]
    begins = np.flatnonzero(np.concatenate([missing[:1], _starts(missing, edges)]))
    ends = np.flatnonzero(np.concatenate([_starts(missing[::-1], edges[::-1])[::-1], missing[-1:]]))
    lengths = ends - begins + 1
    at_an_end = edges[begins] | edges[ends + 1]
    long = lengths >= np.where(at_an_end, AT_AN_END, INSIDE)
    marks = np.zeros(count, np.bool_)
    marks[owners[begins[long]]] = True
    return marks


def _starts(missing: npt.NDArray[np.bool_], edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark where a run of missing triples begins, except at index 0."""
    return missing[1:] & (~missing[:-1] | edges[1:-1])


@dataclass(frozen=True, slots=True)
class Clusters:
    """Near-duplicate clusters of texts with ids.

    ``firsts`` has for each text the index of the one with the smallest id of those that a chain of
    pairs joins it to (its own without pairs). ``equal`` are the pairs of texts of equal words,
    ``near`` the other verified pairs, ``jaccard`` their similarities. Texts of equal words are
    paired only with the one with the smallest id, the texts of a crowd (``candidate_pairs.CROWD``)
    only with its typical texts. ``numbers`` are equal for texts of equal words.
    """

    firsts: Positions
    equal: CandidatePairs
    near: CandidatePairs
    jaccard: npt.NDArray[np.float64]
    numbers: Positions


def find_clusters(order: Positions, texts: DigestedWords, threshold: float = THRESHOLD) -> Clusters:
    """Cluster texts that share most of their word shingles.

    Two texts are a pair if the Jaccard of their shingle sets is at least ``threshold``, or if their
    words are equal. Every pair is verified by its exact Jaccard and none is missed, except in
    crowds, where not all pairs are compared (see ``candidate_pairs``). ``order`` is that of the
    texts' ids, by ``by_id``; else their order does not matter.
    """
    numbers_by_id, firsts = texts.at(order).numbered()
    repeats = np.flatnonzero(firsts[numbers_by_id] != np.arange(len(order)))
    equal = CandidatePairs(firsts[numbers_by_id[repeats]], repeats)
    with ThreadPoolExecutor(THREADS) as pool:
        near, values = _near(texts.at(order[firsts]), threshold, pool)
    near = CandidatePairs(firsts[near.left], firsts[near.right])
    labels = _components(equal.joined(near), len(order))
    smallest_places = np.unique(labels, return_index=True)[1][labels]
    clusters, numbers = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    clusters[order] = order[smallest_places]
    numbers[order] = numbers_by_id
    equal, near = (CandidatePairs(order[pairs.left], order[pairs.right]) for pairs in (equal, near))
    return Clusters(clusters, equal, near, values, numbers)


def without_replaced(order: Positions, texts: WordColumn, clusters: Clusters) -> Positions:
    """Cluster texts by the pairs of ``find_clusters`` without those that differ by a whole passage.

    Returns for each text the index of the first one, in ``order``, of its cluster.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        marks = replaced(texts, clusters.near, pool)
    pairs = clusters.equal.joined(clusters.near.where(~marks))
    return smallest(order, _components(pairs, len(order)))


def smallest(order: Positions, *keys: Positions) -> Positions:
    """Return for each text the index of the first one, in ``order``, that has equal keys."""
    numbers = numbered(*keys)
    firsts = np.unique(numbers[order], return_index=True)[1]
    return order[firsts[numbers]]


def numbered(*keys: Positions) -> Positions:
    """Number the different combinations of keys, which are not negative; 0 is the smallest."""
    numbers = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        # Each is less than the number of rows or texts, so their product is less than 2^63.
        combined = numbers * (int(key.max(initial=0)) + 1) + key
        numbers = np.unique(combined, return_inverse=True)[1]
    return numbers


def by_id(ids: Sequence[str]) -> Positions:
    """Return the places of distinct ids, the smallest first."""
    if all(first < second for first, second in pairwise(ids)):
        return np.arange(len(ids))
    return np.argsort(np.array([*ids], dtype=object), kind="stable")


def _near(
    texts: DigestedWords, threshold: float, pool: Executor
) -> tuple[CandidatePairs, npt.NDArray[np.float64]]:
    """Return the pairs of different texts whose Jaccard reaches the threshold, and the Jaccards."""
    groups = prefixes.group_texts(texts, threshold, pool)
    nobody = np.zeros(0, np.int64)
    near, values = CandidatePairs(nobody, nobody), [np.zeros(0)]

    def verify(pairs: CandidatePairs) -> CandidatePairs:
        measured = jaccards(texts.words, pairs, pool)
        values.append(measured[measured >= threshold])
        return near.joined(pairs.where(measured >= threshold))

    for pairs in candidate_pairs.in_small_groups(groups):
        near = verify(pairs)
    for pairs in candidate_pairs.in_crowds(groups):
        labels = _components(near, len(texts))
        near = verify(pairs.where(labels[pairs.left] != labels[pairs.right]))
    return near, np.concatenate(values)


def _components(pairs: CandidatePairs, count: int) -> Positions:
    """Return each text's component number: equal if a chain of pairs connects them."""
    ones = np.ones(len(pairs), np.bool_)
    graph = sparse.coo_array((ones, (pairs.left, pairs.right)), (count, count))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
