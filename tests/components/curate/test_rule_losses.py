from pathlib import Path

import pytest

from components.curate import held_rows
from components.curate.held_rows import Loss
from components.curate.settings import Rules
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import curations, logs


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        pytest.param({"near_duplicate": 40}, ["near_duplicate"], id="more"),
        pytest.param({"near_duplicate": 30}, [], id="just-so-many"),
        pytest.param({"duplicate": 90}, [], id="copies"),
        pytest.param({"thumbs_down": 90}, [], id="people-disliked-them"),
        pytest.param({"over_label_cap": 90}, [], id="the-file-wants-it"),
        pytest.param({"over_cluster_cap": 90}, [], id="and-a-cap-on-clusters"),
        pytest.param({"offers_holdout_tool": 91}, [], id="the-split-wants-it"),
        pytest.param({"offers_validation_tool": 91}, [], id="and-to-tune-on"),
        pytest.param(
            {"cut_off": 40, "overlaps_holdout": 50}, ["overlaps_holdout", "cut_off"], id="two-rules"
        ),
    ],
)
def test_a_rule_over_its_share_is_reported(lost: dict[str, int], expected: list[str]):
    losses = [Loss("weather", rule, requests, 100) for rule, requests in lost.items()]
    assert [loss.rule for loss in held_rows.find_losses(losses, 0.3)] == expected


def test_fewer_than_ten_requests_are_not_reported():
    assert held_rows.find_losses([Loss("weather", "cut_off", 9, 14)], 0.3) == []


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


def failing(count: int, *, of: int) -> list[dict[str, Json]]:
    """Log a robot's only request, often answered by an error, and others' requests."""
    error = logs.say("502 Bad Gateway")
    pings = [
        logs.interaction("ping", response_id=f"p{n}", timestamp=n, message=error)
        for n in range(count)
    ]
    return pings + [logs.interaction(f"ask {n}", response_id=f"r{n}") for n in range(of)]


def test_a_robots_failing_request_is_one_however_often_it_was_sent(con: Connection, tmp_path: Path):
    logs.load(con, logs.write(tmp_path / "log.jsonl", failing(60, of=40)), now=logs.NOW)
    curations.curate(con, "weather", Rules(), now=logs.NOW)
    assert held_rows.open_losses(con) == []


def test_a_robots_failing_requests_hide_no_other_rules_losses(con: Connection, tmp_path: Path):
    logs.load(con, logs.write(tmp_path / "log.jsonl", failing(60, of=17)), now=logs.NOW)
    curate(con, tmp_path, 12, 0)
    assert held_rows.open_losses(con) == [Loss("weather", "cut_off", 12, 30)]


def test_the_unreported_share_is_configurable(con: Connection, tmp_path: Path):
    curate(con, tmp_path, 12, 18, Rules(most_lost=0.5))
    assert held_rows.open_losses(con) == []


def test_the_unreported_share_does_not_change_the_snapshot():
    assert Rules(most_lost=0.5).model_dump() == Rules().model_dump()


def test_answers_may_quote_a_document_of_the_system_message_but_not_its_instructions(
    con: Connection, tmp_path: Path
):
    secret = " ".join(f"Rule {n}: do not speak about matter {7 * n} to anybody." for n in range(9))
    lines: list[dict[str, Json]] = []
    for n in range(120):
        document = " ".join(
            f"Clause {n}.{m} of the contract binds party {n * m}." for m in range(9)
        )
        system = f"{secret} Today is day {n}. Answer from this document:\n{document}"
        answer = document if n % 4 == 0 else secret if n % 40 == 1 else f"Party {n} is bound."
        lines.append(
            logs.interaction(
                message=logs.say(answer),
                response_id=f"r{n}",
                request={
                    "messages": [
                        {"role": "system", "content": system},
                        {"role": "user", "content": f"What does clause {n} of {n} say?"},
                    ]
                },
            )
        )
    logs.load(con, logs.write(tmp_path / "log.jsonl", lines), now=logs.NOW)
    tally = curations.curate(con, "weather", Rules(split_by="conversation"), now=logs.NOW)
    assert tally.counts["prompt_leak"] == 3
