"""Other ways to find the pairs of near-duplicates, each verified, for ``near_duplicates``.

Each function takes the texts (words between single spaces) and gives pairs of places, the smaller
first. Where a package leaves its candidates unverified, they are verified here.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.curate.near import duplicates, hashed_words, shared_text, shingles
from components.curate.near.candidate_pairs import CandidatePairs
from components.curate.near.hashed_words import DigestedWords, WordColumn

Found = set[tuple[int, int]]
Sets = Sequence[set[str]] | dict[int, set[str]]
BANDS, ROWS = 16, 8


def flywheel(texts: Sequence[str], threshold: float) -> Found:
    """Ours, as curation calls it: what many texts share is found first, and not compared."""
    column = pa.array(texts, pa.large_string())
    own, whole = shared_text.own_words(column), hashed_words.column_of(column)
    words = WordColumn(
        np.concatenate([own.hashes, whole.hashes]),
        np.where(own.sizes > 0, own.begins, len(own.hashes) + whole.begins),
        np.where(own.sizes > 0, own.sizes, whole.sizes),
    )
    clusters = duplicates.find_clusters(np.arange(len(texts)), DigestedWords.of(words), threshold)
    found = clusters.equal.joined(clusters.near)
    return set(zip(found.left.tolist(), found.right.tolist(), strict=True))


def duckdb_sql(texts: Sequence[str], threshold: float) -> Found:
    """MinHash bands and the exact Jaccard in SQL."""
    con = duckdb.connect()
    con.execute("set preserve_insertion_order = false")
    con.register("given", pa.table({"place": range(len(texts)), "text": pa.array(texts)}))
    found = con.execute(_SQL, {"threshold": threshold}).fetchall()
    return {(left, right) for left, right in found}


_SQL = f"""
    with worded as (select place, string_split(text, ' ') as words from given),
    shingled as materialized (
        select place, list_distinct(list_transform(
            list_zip(words[1:-3], words[2:-2], words[3:]), lambda three: hash(three)
        )) as shingles
        from worded
    ),
    flat as (select place, unnest(shingles) as shingle from shingled),
    signed as (
        select place, shingle % {BANDS * ROWS} as slot, min(shingle) as least
        from flat group by place, slot
    ),
    banded as (
        select place, slot // {ROWS} as band, hash(list(least order by slot)) as bucket
        from signed group by place, band
    ),
    buckets as (
        select list(place order by place) as places from banded
        group by band, bucket having count(*) > 1
    ),
    lefts as (select places, unnest(range(1, len(places))) as spot from buckets),
    pairs as (
        select distinct
            places[lefts.spot] as left_place, unnest(places[lefts.spot + 1:]) as right_place
        from lefts
    ),
    shared as (
        select left_place, right_place,
            len(one.shingles) as ones, len(other.shingles) as others,
            len(list_intersect(one.shingles, other.shingles)) as common
        from pairs
        inner join shingled as one on one.place = left_place
        inner join shingled as other on other.place = right_place
    )
    select left_place, right_place from shared where common / (ones + others - common) >= $threshold
"""


def rensa(texts: Sequence[str], threshold: float) -> Found:
    """R-MinHash of rensa; our hashing before it, our verification after it."""
    peer = import_module("rensa").RMinHash
    column = hashed_words.column_of(pa.array(texts, pa.large_string()))
    found = [shingles.shingle(chunk.words()) for chunk in column.chunks()]
    sizes = np.concatenate([np.diff(one.bounds) for one in found])
    matrix = peer.digest_matrix_from_flat_token_hashes(
        np.concatenate([one.hashes for one in found]),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64),
        BANDS * ROWS,
        7,
    )
    return _verified(column, _in_bands(np.array(matrix.to_rows(), np.uint32)), threshold)


def datasketch(texts: Sequence[str], threshold: float) -> Found:
    """Datasketch with the same bands, verified with sets."""
    peer = import_module("datasketch")
    sets = [_triples(text) for text in texts]
    index = peer.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    signed = peer.MinHash.bulk(
        [[shingle.encode() for shingle in one] for one in sets], num_perm=BANDS * ROWS
    )
    candidates: Found = set()
    for place, signature in enumerate(signed):
        candidates.update((other, place) for other in index.query(signature))
        index.insert(place, signature)
    return _by_sets(sets, candidates, threshold)


def gaoya(texts: Sequence[str], threshold: float) -> Found:
    """Gaoya with the same bands, verified with sets."""
    peer = import_module("gaoya.minhash").MinHashStringIndex
    # It drops what it estimates to be below its own threshold: asked for less, it misses less.
    index = peer(32, threshold - 0.1, BANDS, ROWS, None, "word", False, (3, 3))
    places = list(range(len(texts)))
    index.par_bulk_insert_docs(places, list(texts))
    candidates = {
        (min(place, other), max(place, other))
        for place, others in enumerate(index.par_bulk_query(list(texts)))
        for other in others
        if other != place
    }
    among = {place for pair in candidates for place in pair}
    sets = {place: _triples(texts[place]) for place in among}
    return _by_sets(sets, candidates, threshold)


PEERS: dict[str, Callable[[Sequence[str], float], Found]] = {
    "flywheel": flywheel,
    "rensa": rensa,
    "duckdb": duckdb_sql,
    "gaoya": gaoya,
    "datasketch": datasketch,
}


def _in_bands(signatures: npt.NDArray[np.uint32]) -> CandidatePairs:
    """Pair the rows that are equal in one of the bands."""
    codes: list[npt.NDArray[np.int64]] = []
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * ROWS))).ravel()
        groups = defaultdict[bytes, list[int]](list)
        _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
        for place in np.flatnonzero(counts[places] > 1).tolist():
            groups[places[place]].append(place)
        for members in groups.values():
            left, right = np.triu_indices(len(members), 1)
            named = np.array(members)
            codes.append(named[left] << 32 | named[right])
    every = np.unique(np.concatenate(codes)) if codes else np.zeros(0, np.int64)
    return CandidatePairs(every >> 32, every & 0xFFFFFFFF)


def _verified(column: WordColumn, pairs: CandidatePairs, threshold: float) -> Found:
    with ThreadPoolExecutor(duplicates.THREADS) as pool:
        near = pairs.where(duplicates.jaccards(column, pairs, pool, threshold) >= threshold)
    return set(zip(near.left.tolist(), near.right.tolist(), strict=True))


def _by_sets(sets: Sets, candidates: Found, least: float) -> Found:
    return {
        (left, right)
        for left, right in candidates
        if len(sets[left] & sets[right]) >= least * len(sets[left] | sets[right])
    }


def _triples(text: str) -> set[str]:
    words = text.split(" ")
    return {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}
