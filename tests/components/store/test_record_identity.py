"""A record keeps what later ones of the same interaction say, each value once."""

import time
from typing import Any

import pytest

from components.schema import Json
from components.store.record_identity import EARLIER, MergedRecord, Record

FIVE: Record = {
    "timestamp": 1,
    "workload_id": "support",
    "client_id": "shop",
    "request": {"messages": []},
    "response": {"id": "r1"},
}


def merged(*metadata: dict[str, Json]) -> dict[str, Any]:
    first, *later = ({**FIVE, **each} for each in metadata)
    record = MergedRecord(first)
    for each in later:
        record.add(each)
    return {key: value for key, value in record.record.items() if key not in FIVE}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param([{"tier": 1}, {"tier": 1.0}], {"tier": 1}, id="equal-numbers"),
        pytest.param(
            [{"paid": 1}, {"paid": True}], {"paid": True, EARLIER: [{"paid": 1}]}, id="not-a-number"
        ),
        pytest.param(
            [{"metadata": {"a": 0, "b": 2}}, {"metadata": {"a": False}}],
            {"metadata": {"a": False, "b": 2}, EARLIER: [{"metadata": {"a": 0}}]},
            id="not-a-number-within",
        ),
        pytest.param(
            [{"tier": 1}, {"tier": 2}, {"tier": 1}], {"tier": 2, EARLIER: [{"tier": 1}]}, id="again"
        ),
        pytest.param(
            [{"metadata": {"a": 1}}, {"metadata": {"b": 2}}, {"metadata": {"a": 3, "b": None}}],
            {"metadata": {"a": 3, "b": 2}, EARLIER: [{"metadata": {"a": 1}}]},
            id="fields",
        ),
        pytest.param(
            [{"metadata": {"a": 1}}, {"metadata": "x"}, {"metadata": {"a": 1}}],
            {"metadata": "x", EARLIER: [{"metadata": {"a": 1}}]},
            id="another-type",
        ),
        pytest.param(
            [{"score": float("nan")}] * 3,
            {"score": pytest.approx(float("nan"), nan_ok=True)},
            id="nan",
        ),
    ],
)
def test_the_later_value_counts_and_the_earlier_is_kept(
    metadata: list[dict[str, Json]], expected: dict[str, Json]
) -> None:
    assert merged(*metadata) == expected


def test_a_later_record_is_not_changed_by_those_after_it() -> None:
    later: dict[str, Json] = {**FIVE, "metadata": {"a": 1}}
    record = MergedRecord(FIVE)
    assert record.add(later)
    assert record.add({**FIVE, "metadata": {"b": 2}})
    assert later["metadata"] == {"a": 1}
    assert not record.add(later)


def test_an_interaction_that_is_sent_again_and_again_takes_time_in_proportion() -> None:
    """Its client may send it with ever other metadata; 20,000 of them took eleven minutes."""
    began = time.process_time()
    record = MergedRecord(FIVE)
    for number in range(20_000):
        record.add({**FIVE, "metadata": {"n": number, f"key {number}": 1}, f"top {number}": 1})
    assert len(record.record[EARLIER]) == 19_999
    assert time.process_time() - began < 10
