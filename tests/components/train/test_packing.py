"""Packed rows store a common prefix once, and each sees only its own tokens."""

from hypothesis import given
from hypothesis import strategies as st

from components.train import packing

rows = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=8)


def test_a_common_prefix_is_in_the_sequence_once():
    packed = packing.pack_rows([[7, 8, 1, 2], [5], [7, 8, 3]])
    assert packed.tokens.tolist() == [5, 7, 8, 1, 2, 3]
    assert packed.positions.tolist() == [0, 0, 1, 2, 3, 2]
    assert [places.tolist() for places in packed.row_indices] == [[1, 2, 3, 4], [0], [1, 2, 5]]


@given(rows)
def test_each_token_sees_exactly_the_earlier_tokens_of_its_row(rows: list[list[int]]):
    packed = packing.pack_rows(rows)
    assert len(packed.tokens) == packing.packed_size(rows) <= sum(map(len, rows))
    for row, places in zip(rows, packed.row_indices, strict=True):
        assert packed.tokens[places].tolist() == row
        assert packed.positions[places].tolist() == list(range(len(row)))
        for length, place in enumerate(places, start=1):
            assert packed.visible[place].nonzero()[0].tolist() == places[:length].tolist()


@given(rows)
def test_nothing_is_seen_outside_of_a_tokens_block(rows: list[list[int]]):
    packed = packing.pack_rows(rows)
    assert [place for block in packed.blocks for place in range(*block)] == [
        *range(len(packed.tokens))
    ]
    for start, end in packed.blocks:
        assert packed.visible[start:end].sum() == packed.visible[start:end, start:end].sum()


def test_rows_with_a_short_common_prefix_are_separate_blocks():
    packed = packing.pack_rows([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 8, 9], [1, 9, 9, 9]])
    assert packed.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 9, 9, 9]
    assert packed.blocks == [(0, 9), (9, 13)]


@given(rows, st.integers(1, 4))
def test_each_row_is_in_one_share(rows: list[list[int]], count: int):
    shares = packing.share_out(rows, count)
    assert sorted(row for share in shares for row in share) == list(range(len(rows)))
    assert all(shares)
    assert len(shares) <= count


def test_shares_are_even_and_keep_families_together():
    first, second = [[1] * 50 + [row] for row in range(4)], [[2] * 50 + [row] for row in range(4)]
    mixed = [row for pair in zip(first, second, strict=True) for row in pair]
    assert packing.share_out(mixed, 2) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_shares_are_even_without_common_prefixes():
    rows = [[row] * length for row, length in enumerate((90, 80, 30, 20, 20))]
    shares = packing.share_out(rows, 2)
    assert sorted(sum(len(rows[row]) for row in share) for share in shares) == [120, 120]


@given(rows)
def test_a_family_is_cut_rather_than_leave_a_share_empty(rows: list[list[int]]):
    assert len(packing.share_out(rows, 2)) == min(2, len(rows))
