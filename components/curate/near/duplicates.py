"""Cluster near-duplicate texts by their verified Jaccard similarity."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from components.curate.near import candidate_pairs, prefixes, shingles
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
LEAST_WORDS = 1 << 7  # of a text, so that fewer than 2^16 are compared at once

ODD_BITS = 2048  # of a text, a multiple of 64
ROUNDING = 1e-6  # of a bound of whole numbers

THREADS = 2


def jaccards(
    texts: WordColumn, pairs: CandidatePairs, pool: Executor, least: float
) -> npt.NDArray[np.float64]:
    """Return each pair's Jaccard similarity of shingle sets; 0 for texts without shingles.

    Similarities below ``least`` may be returned as 0.
    """
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
        values[order[part]] = _jaccards(texts, ordered.where(part), pool, least)
    return values


def _jaccards(
    texts: WordColumn, pairs: CandidatePairs, pool: Executor, least: float
) -> npt.NDArray[np.float64]:
    places, ends = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = ends[: len(pairs)], ends[len(pairs) :]
    rows = _rows(texts.at(places), pool)
    sizes = np.diff(rows.indptr)
    together = sizes[left] + sizes[right]
    differing = _of_blocks(pool, partial(_differing, _odd_bits(rows)), left, right)
    near = np.flatnonzero(differing <= together * (1 - least) / (1 + least) + ROUNDING)
    shared = _of_blocks(pool, partial(_shared, rows), left[near], right[near])
    values = np.zeros(len(pairs))
    values[near] = shared / np.maximum(together[near] - shared, 1)
    return values


def _of_blocks(
    pool: Executor,
    work: Callable[[Positions, Positions], Positions],
    left: Positions,
    right: Positions,
) -> Positions:
    """Return the numbers of pairs, of which ``work`` counts few at a time."""
    starts = range(0, len(left), JACCARDS_AT_ONCE)
    blocks = [slice(start, start + JACCARDS_AT_ONCE) for start in starts]
    counts = in_order(pool, lambda block: work(left[block], right[block]), blocks)
    return np.concatenate([np.zeros(0, np.int64), *counts])


def _odd_bits(rows: sparse.csr_matrix) -> Hashes:
    """Return for each text the bits of which it has an odd number of shingles, by their hashes."""
    sizes = np.diff(rows.indptr)
    of_texts = np.repeat(np.arange(len(sizes)) * ODD_BITS, sizes) + rows.indices % ODD_BITS
    bits = np.zeros(len(sizes) * ODD_BITS // 64, np.uint64)
    np.bitwise_xor.at(bits, of_texts // 64, np.uint64(1) << (of_texts % 64).astype(np.uint64))
    return bits.reshape(len(sizes), -1)


def _differing(odd: Hashes, left: Positions, right: Positions) -> Positions:
    """Return how many bits of each pair differ: at most as many as its shingles do."""
    return np.bitwise_count(odd[left] ^ odd[right]).sum(axis=1, dtype=np.int64)


def _shared(rows: sparse.csr_matrix, left: Positions, right: Positions) -> Positions:
    """Count the shingles that each pair shares."""
    return rows[left].multiply(rows[right]).getnnz(axis=1)


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
        measured = jaccards(texts.words, pairs, pool, threshold)
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
