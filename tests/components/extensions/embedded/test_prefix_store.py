"""Stored prefixes are what was stored under that key, in bounded memory, the oldest gone first."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from components.extensions.embedded.prefix_store import PrefixStore

ROWS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


def stored(key: str, row: list[int]) -> torch.Tensor:
    """Make keys and values that name their key and all tokens before them."""
    sums = [hash((key, *row[: end + 1])) % 10_000 for end in range(len(row))]
    return torch.tensor(sums, dtype=torch.float32).view(1, 1, -1, 1, 1).expand(1, 2, -1, 1, 1)


def add(store: PrefixStore, key: str, row: list[int]) -> None:
    whole = stored(key, row)
    store.add(key, row, lambda start, stop: whole[:, :, start:stop].clone())


def find(store: PrefixStore, key: str, row: list[int]) -> torch.Tensor:
    parts = list(store.find(key, row))
    return torch.cat(parts, 2) if parts else torch.empty(1, 2, 0, 1, 1)


@given(rows=st.lists(st.tuples(st.sampled_from("ab"), ROWS)), row=ROWS)
def test_the_longest_stored_prefix_of_the_same_key_is_found(
    rows: list[tuple[str, list[int]]], row: list[int]
) -> None:
    store = PrefixStore(1 << 20)
    for key, known in rows:
        add(store, key, known)
    for key in "ab":
        prefixes = [
            length
            for length in range(len(row) + 1)
            if any(k == key and known[:length] == row[:length] for k, known in rows)
        ]
        length = max(prefixes, default=0)
        assert torch.equal(find(store, key, row), stored(key, row)[:, :, :length])


@given(rows=st.lists(st.tuples(st.sampled_from("ab"), ROWS)), limit=st.integers(0, 15))
def test_memory_is_bounded_and_what_is_left_is_right(
    rows: list[tuple[str, list[int]]], limit: int
) -> None:
    store = PrefixStore(limit * 8)
    for key, row in rows:
        add(store, key, row)
        assert store.bytes <= limit * 8
    for key, row in rows:
        known = find(store, key, row)
        assert torch.equal(known, stored(key, row)[:, :, : known.shape[2]])
    for key in "ab":
        store.drop(key)
        assert find(store, key, [0, 1, 2]).shape[2] == 0
    assert store.bytes == 0


def test_a_shared_beginning_is_stored_once() -> None:
    store = PrefixStore(1 << 20)
    add(store, "a", [*range(100), 1])
    add(store, "a", [*range(100), 2])
    assert store.bytes == 102 * 8


def test_what_was_not_used_for_longest_goes_first() -> None:
    store = PrefixStore(4 * 8)
    add(store, "a", [1, 1])
    add(store, "a", [2, 2])
    assert find(store, "a", [1, 1]).shape[2] == 2
    add(store, "a", [3, 3])
    assert [find(store, "a", [n, n]).shape[2] for n in (1, 2, 3)] == [2, 0, 2]
