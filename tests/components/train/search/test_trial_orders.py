"""What is ordered and what came of it is read back as it was; a rung says how far it is."""

from pathlib import Path

from components.schema import Progress
from components.train.search import run, schedule
from components.train.search.run import TrialOrder, TrialOutcome
from tests.support import search_courses


def made() -> schedule.SearchPlan:
    given = search_courses.courses([[10] * 30] * 4)
    return schedule.make_search_plan(
        given, search_courses.search(tokens=10_000), search_courses.key_of
    )


def orders(rung: int = 0) -> list[TrialOrder]:
    return [TrialOrder(entry=one, rung=rung, at_step=one.stops[rung]) for one in made().entries]


def test_an_order_has_come_to_nothing_until_its_outcome_is_kept(tmp_path: Path):
    order = orders()[0]
    file = run.write_order(tmp_path, order)
    assert TrialOrder.model_validate_json(file.read_text()) == order
    assert run.read_outcome(file) is None
    came = search_courses.outcome(order, 1.5)
    run.write_outcome(file, came)
    assert run.read_outcome(file) == came
    assert run.write_order(tmp_path, order) == file
    assert run.read_outcome(file) == came, "giving it again does not undo it"


def test_a_training_without_rows_to_measure_on_cannot_be_compared():
    assert TrialOutcome(key="a", rung=0).objection == "no validation row fits into its max_length"
    assert TrialOutcome(key="a", rung=0, trouble="diverged").objection == "diverged"


def test_a_rung_says_how_far_all_of_it_is_and_how_one_that_is_under_way_goes():
    loss = {"loss": 0.5, "seconds_left": 7.0}
    said = [
        Progress("train", 10, 30, "steps", {"validation_loss": 0.4}),
        Progress("train", 4, 30, "steps", loss),
        None,
        None,
    ]
    now = run.combined_progress(orders(), said)
    assert now == Progress("rung 1, 4 candidates:", 14, 40, "steps", {"loss": 0.5})


def test_a_rung_that_nobody_has_begun_says_so():
    now = run.combined_progress(orders(), [None] * 4)
    assert (now.done, now.total, now.figures) == (0, 40, {})


def test_the_page_has_a_row_for_each_candidate_and_shows_nothing_of_the_data():
    given = made()
    train = search_courses.trainer(lambda entry: 9.0 - entry.recipe.r, [], [("r2", 0)])
    text = run.search_page("support", given, run.run_search(given, train))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| r ")]
    assert [row[0] for row in rows] == ["| r 4", "| r 3", "| r 1", "| r 2"]
    assert rows[0][1:] == [
        "winner",
        "the best",
        "2 of 2",
        "30 of 30",
        "not measured",
        "5.0000",
        "4 |",
    ]
    assert rows[2][1:5] == ["pruned", "place 3 of 3 at rung 1", "1 of 2", "10 of 30"]
    assert rows[3][1:3] == ["failed", "see the log of its job"]
    assert "diverged" not in text
    assert "600 of 10,000 tokens" in text


def test_the_last_rung_is_of_one_and_a_pace_is_of_none():
    last = made().entries[0]
    order = TrialOrder(entry=last, rung=1)
    assert run.combined_progress([order], [None]).stage == "rung 2, 1 candidate:"
    pace = order.model_copy(update={"rung": -1, "at_step": 4})
    assert run.combined_progress([pace], [None]).stage == "measuring paces:"


def test_the_time_of_all_candidates_is_summed(tmp_path: Path):
    for rung, took in ((0, 2.0), (1, 3.5)):
        order = orders(rung)[0]
        came = search_courses.outcome(order, 1.5).model_copy(update={"seconds": took})
        run.write_outcome(run.write_order(tmp_path, order), came)
    run.write_order(tmp_path, orders()[1])
    assert run.trained_seconds(tmp_path) == 5.5
