"""Find the near-duplicates among texts and join them to clusters."""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from components.curate.near import candidates, differences, jaccard, prefixes
from components.curate.near.candidates import Groups, Pairs
from components.curate.near.prefixes import TEXT_BITS
from components.curate.near.settings import THRESHOLD
from components.curate.near.shingles import Column, Positions, Texts

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


def find(ids: Sequence[str], texts: Sequence[str], threshold: float = THRESHOLD) -> Clusters:
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
    equal = Pairs(firsts[places[repeats]], repeats)
    with ThreadPoolExecutor(THREADS) as pool:
        near, values = _near(encoded.dictionary, threshold, pool)
    pairs = equal.joined(Pairs(firsts[near.left], firsts[near.right]))
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
    pairs = Pairs(
        np.array([places[name] for name in found.left], np.int64),
        np.array([places[name] for name in found.right], np.int64),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        marks = differences.replaced(pa.array(texts, pa.large_string()), pairs, pool)
    smallest: dict[int, str] = {}
    labels = _components(pairs.where(~marks), len(ids)).tolist()
    for label, name in zip(labels, ids, strict=True):
        smallest[label] = min(name, smallest.get(label, name))
    return [smallest[label] for label in labels]


def _near(texts: Column, threshold: float, pool: Executor) -> tuple[Pairs, npt.NDArray[np.float64]]:
    """Give the pairs of different texts whose Jaccard reaches the threshold, with it."""
    groups = _grouped(texts, threshold, pool)
    found, values = Pairs.none(), [np.zeros(0)]

    def verify(pairs: Pairs) -> Pairs:
        their = jaccard.jaccards(texts, pairs, pool)
        values.append(their[their >= threshold])
        return found.joined(pairs.where(their >= threshold))

    for pairs in candidates.in_small_groups(groups):
        found = verify(pairs)
    for pairs in candidates.in_crowds(groups):
        labels = _components(found, len(texts))
        found = verify(pairs.where(labels[pairs.left] != labels[pairs.right]))
    return found, np.concatenate(values)


def _grouped(texts: Column, threshold: float, pool: Executor) -> Groups:
    """Group the texts by what their prefixes share."""
    sample = texts.take(np.arange(0, len(texts), prefixes.SAMPLED))
    order = prefixes.order(Texts.of(sample), threshold, pool)
    text_bits = max(TEXT_BITS, len(texts).bit_length())
    before, entries, shared = 0, [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for part in pool.map(partial(prefixes.prefixes, order=order), Texts.of(texts).chunks()):
        owners = (part.owners + before).astype(np.uint64)
        entries.append((part.keys << np.uint64(text_bits)) | owners)
        shared.append(part.shared)
        before += len(part.shared)
    return candidates.group(np.concatenate(entries), text_bits, np.concatenate(shared))


def _components(pairs: Pairs, count: int) -> Positions:
    """Number the connected texts: equal numbers for texts that a chain of pairs connects."""
    ones = np.ones(len(pairs), np.bool_)
    graph = sparse.coo_array((ones, (pairs.left, pairs.right)), (count, count))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
