"""Orders and outcomes round-trip, and a rung reports its combined progress."""

from pathlib import Path

from components.extensions.search import run, schedule
from components.extensions.search.run import TrialOrder, TrialOutcome
from components.schema import Progress
from tests.support import search_courses


def made() -> schedule.SearchPlan:
    courses = search_courses.courses([[10] * 30] * 4)
    return schedule.make_search_plan(
        courses, search_courses.search(tokens=10_000), search_courses.key_of
    )


def orders(rung: int = 0) -> list[TrialOrder]:
    return [
        TrialOrder(entry=entry, rung=rung, at_step=entry.stops[rung]) for entry in made().entries
    ]


def test_an_order_keeps_its_outcome_once_it_is_written(tmp_path: Path):
    order = orders()[0]
    file = run.write_order(tmp_path, order)
    assert TrialOrder.model_validate_json(file.read_text()) == order
    assert run.read_outcome(file) is None
    outcome = search_courses.outcome(order, 1.5)
    run.write_outcome(file, outcome)
    assert run.read_outcome(file) == outcome
    assert run.write_order(tmp_path, order) == file
    assert run.read_outcome(file) == outcome, "writing the order again keeps its outcome"


def test_a_training_without_rows_to_measure_on_cannot_be_compared():
    assert TrialOutcome(key="a", rung=0).objection == "no validation row fits into its max_length"
    assert TrialOutcome(key="a", rung=0, trouble="diverged").objection == "diverged"


def test_progress_is_summed_over_a_rung_with_the_figures_of_a_running_trial():
    loss = {"loss": 0.5, "seconds_left": 7.0}
    latest = [
        Progress("train", 10, 30, "steps", {"validation_loss": 0.4}),
        Progress("train", 4, 30, "steps", loss),
        None,
        None,
    ]
    now = run.combined_progress(orders(), latest)
    assert now == Progress("rung 1, 4 candidates:", 14, 40, "steps", {"loss": 0.5})


def test_a_rung_that_has_not_started_has_no_figures():
    now = run.combined_progress(orders(), [None] * 4)
    assert (now.done, now.total, now.figures) == (0, 40, {})


def test_a_rung_whose_trials_are_trained_says_that_they_are_being_measured():
    now = run.combined_progress(orders(), [Progress("train", 10, 30, "steps", {"loss": 0.5})] * 4)
    assert now == Progress("rung 1, 4 candidates, being measured:", 40, 40, "steps", {})


def test_the_page_has_a_row_per_candidate_and_no_training_data():
    plan = made()
    train = search_courses.trainer(lambda entry: 9.0 - entry.recipe.r, [], [("r2", 0)])
    text = run.search_page("support", plan, run.run_search(plan, train))
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


def test_the_stage_names_the_rung_and_its_number_of_candidates_or_the_pace():
    last = made().entries[0]
    order = TrialOrder(entry=last, rung=1)
    assert run.combined_progress([order], [None]).stage == "rung 2, 1 candidate:"
    pace = order.model_copy(update={"rung": -1, "at_step": 4})
    assert run.combined_progress([pace], [None]).stage == "measuring paces:"


def test_only_orders_that_ran_have_an_outcome(tmp_path: Path):
    for rung, took in ((0, 2.0), (1, 3.5)):
        order = orders(rung)[0]
        outcome = search_courses.outcome(order, 1.5).model_copy(update={"seconds": took})
        run.write_outcome(run.write_order(tmp_path, order), outcome)
    run.write_order(tmp_path, orders()[1])
    assert [outcome.seconds for outcome in run.read_outcomes(tmp_path)] == [2.0, 3.5]
