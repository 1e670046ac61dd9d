from pathlib import Path

import pytest

from components.curate import held_rows
from components.curate.held_rows import Loss
from components.curate.settings import Rules
from components.store.warehouse import Connection
from tests.support import curations, logs, warehouses


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param({"kept": 60, "near_duplicate": 40}, ["near_duplicate"], id="more"),
        pytest.param({"kept": 70, "near_duplicate": 30}, [], id="just-so-many"),
        pytest.param({"kept": 5, "cut_off": 9}, [], id="few-rows"),
        pytest.param({"kept": 10, "duplicate": 990}, [], id="copies"),
        pytest.param(
            {"kept": 10, "duplicate": 900, "too_long": 12}, ["too_long"], id="but-for-copies"
        ),
        pytest.param({"kept": 10, "thumbs_down": 90}, [], id="people-disliked-them"),
        pytest.param({"kept": 10, "over_label_cap": 90}, [], id="the-file-wants-it"),
        pytest.param({"kept": 9, "offers_holdout_tool": 91}, [], id="the-split-wants-it"),
        pytest.param({"kept": 9, "offers_validation_tool": 91}, [], id="and-to-tune-on"),
        pytest.param(
            {"kept": 10, "cut_off": 40, "overlaps_holdout": 50},
            ["overlaps_holdout", "cut_off"],
            id="two-rules",
        ),
    ],
)
def test_a_rule_over_its_share_is_reported(counts: dict[str, int], expected: list[str]):
    assert [loss.rule for loss in held_rows.find_losses("weather", counts, 0.3)] == expected


@pytest.fixture
def con(tmp_path: Path):
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        yield con


def curate(con: Connection, folder: Path, cut: int, whole: int, rules: Rules | None = None) -> None:
    """Curate a log with cut-off answers."""
    lines = [
        logs.interaction(
            f"ask {n} of {cut}",
            response={
                "id": f"{cut} {n}",
                "choices": [
                    {
                        "index": 0,
                        "message": logs.say("Sunny."),
                        "finish_reason": "length" if n < cut else "stop",
                    }
                ],
            },
        )
        for n in range(cut + whole)
    ]
    logs.load(con, logs.write(folder / f"{cut}-{whole}.jsonl", lines), now=logs.NOW)
    curations.curate(con, "weather", rules or Rules(), now=logs.NOW)


def test_a_released_loss_passes_until_it_grows(con: Connection, tmp_path: Path):
    curate(con, tmp_path, 12, 18)
    assert held_rows.open_losses(con) == [Loss("weather", "cut_off", 12, 30)]
    (example, *_) = held_rows.lost_examples(con, held_rows.open_losses(con)[0])
    assert example.asked is not None and example.asked.startswith("ask ")
    held_rows.release_losses(
        con, held_rows.open_losses(con), by="ann", note="all right", now=logs.NOW
    )
    assert held_rows.open_losses(con, "weather") == []
    curate(con, tmp_path, 15, 15)
    assert held_rows.open_losses(con, "weather") == []
    curate(con, tmp_path, 40, 0)
    assert held_rows.open_losses(con, "weather") == [Loss("weather", "cut_off", 67, 100)]


def test_the_unreported_share_is_configurable(con: Connection, tmp_path: Path):
    curate(con, tmp_path, 12, 18, Rules(most_lost=0.5))
    assert held_rows.open_losses(con) == []


def test_the_unreported_share_does_not_change_the_snapshot():
    assert Rules(most_lost=0.5).model_dump() == Rules().model_dump()
