"""A tree has each row, shares prefixes of neighbours, and can be read in any packs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.extensions.cpu.prefix_cache import forward

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=8)


def path(grown: forward.Tree, row: int) -> list[int]:
    """Follow a row from its leaf to the root."""
    nodes = [int(grown.leaves[row])]
    while grown.parents[nodes[-1]] != forward.ROOT:
        nodes.append(int(grown.parents[nodes[-1]]))
    return nodes[::-1]


@given(rows=ROWS)
def test_each_row_is_found_again_from_its_leaf(rows: list[list[int]]):
    grown = forward.grow(rows)
    paths = [path(grown, row) for row in range(len(rows))]
    assert [grown.tokens[nodes].tolist() for nodes in paths] == rows
    assert all(grown.positions[nodes].tolist() == list(range(len(nodes))) for nodes in paths)
    assert [grown.last(number, len(row)) for number, row in enumerate(rows)] == paths


@given(rows=ROWS)
def test_sorted_rows_have_each_prefix_once(rows: list[list[int]]):
    beginnings = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    assert len(forward.grow(sorted(rows)).tokens) == len(beginnings)


@given(rows=ROWS, room=st.integers(1, 5))
def test_a_packs_mask_shows_a_node_its_ancestors(rows: list[list[int]], room: int):
    grown = forward.grow(rows)
    before = {node: nodes[: place + 1] for row in range(len(rows)) for nodes in [path(grown, row)]
              for place, node in enumerate(nodes)}  # fmt: skip
    at_hand = np.empty(0, np.int64)
    packed = list(forward.packs(grown, room))
    for pack in packed:
        assert pack.columns.tolist() == [*at_hand, *range(pack.start, pack.stop)]
        for node, seen in zip(range(pack.start, pack.stop), pack.seen, strict=True):
            assert pack.columns[seen].tolist() == before[node]
        at_hand = pack.columns[pack.kept]
    assert [node for pack in packed for node in range(pack.start, pack.stop)] == sorted(before)
    assert all(pack.stop - pack.start <= room for pack in packed)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([[1], [2, 2, 2], [3, 3]], [1, 2, 0], id="long-before-short"),
        pytest.param([[1, 1, 1, 2], [9] * 3, [1, 1, 1, 3, 3]], [0, 2, 1], id="alike-together"),
        pytest.param([], [], id="none"),
    ],
)
def test_rows_are_ordered_by_length_with_shared_prefixes_together(
    rows: list[list[int]], expected: list[int]
):
    assert forward.by_length(rows) == expected
