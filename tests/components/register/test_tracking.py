"""An adapter has one MLflow run, even if its training was killed."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.register import tracking
from components.schema import Progress


def open_run(key: str, experiment: str = "support") -> str:
    return tracking.open_run(experiment, key, params={"r": 16}, tags={"snapshot": "s1"})


def test_a_run_carries_the_recipe_and_what_it_came_from() -> None:
    run = MlflowClient().get_run(open_run("a1"))
    assert run.data.params == {"r": "16"}
    assert run.data.tags["snapshot"] == "s1"
    assert run.info.status == "RUNNING"


def test_a_run_that_a_crash_left_open_is_resumed() -> None:
    assert open_run("a2") == open_run("a2")


def test_a_killed_run_is_opened_again() -> None:
    run_id = open_run("a3")
    tracking.close_run(run_id, "KILLED")
    assert MlflowClient().get_run(run_id).info.status == "KILLED"
    assert open_run("a3") == run_id
    assert MlflowClient().get_run(run_id).info.status == "RUNNING"


def test_another_adapter_or_experiment_has_another_run() -> None:
    assert len({open_run("a4"), open_run("a5"), open_run("a4", "sales")}) == 3


def test_a_run_is_found_by_its_adapter() -> None:
    run_id = open_run("a6")
    assert tracking.find_run("support", "a6") == run_id


def test_runs_of_all_experiments_have_the_head_of_the_chain_at_their_judgement() -> None:
    judged, other, never = open_run("a9"), open_run("a9", "sales"), open_run("a10")
    for run_id, head in ((judged, "1 aa"), (other, "2 bb"), (judged, "3 cc")):
        tracking.tag_chain_head(run_id, head)
    heads = tracking.chain_heads()
    assert (heads[judged], heads[other]) == ("3 cc", "2 bb"), "the newest end"
    assert never not in heads


def test_the_pages_say_what_a_workloads_runs_are_and_what_the_gate_found(tmp_path: Path) -> None:
    run_id, folder = open_run("a12"), tmp_path / "e1"
    folder.mkdir()
    (folder / "report.html").write_text("<p>worse</p>")
    page = tracking.log_evidence(run_id, folder, "worse than the base")
    assert page.endswith(f"/runs/{run_id}/artifacts/evidence/e1")
    run = MlflowClient().get_run(run_id)
    assert run.data.tags["mlflow.note.content"].startswith("worse than the base: `evidence/e1/")
    experiment = MlflowClient().get_experiment(run.info.experiment_id)
    assert "workload `support`" in experiment.tags["mlflow.note.content"]


def test_scores_of_a_task_with_a_name_that_mlflow_refuses_are_logged() -> None:
    run_id = open_run("a11")
    scores = {"challenger/quiz, v2/exact@1": 0.5, "challenger/../b": 0.6, f"base/{'x' * 300}": 0.7}
    tracking.log_scores(run_id, {**scores, "challenger/correct": 0.75}, [])
    metrics = MlflowClient().get_run(run_id).data.metrics
    assert sorted(metrics.values()) == [0.5, 0.6, 0.7, 0.75]
    assert metrics["challenger/quiz_ v2/exact_1"] == 0.5
    assert metrics["challenger/correct"] == 0.75


@pytest.mark.parametrize("experiment", ["support", "nobody's"])
def test_an_adapter_without_a_run_is_named(experiment: str) -> None:
    open_run("a7")
    with pytest.raises(LookupError, match="a8"):
        tracking.find_run(experiment, "a8")


def losses(run_id: str) -> list[tuple[int, float]]:
    history = MlflowClient().get_metric_history(run_id, "loss")
    return [(metric.step, metric.value) for metric in history]


def step(done: int, total: int) -> Progress:
    return Progress("train", done, total, "steps", {"loss": 1 / done, "learning_rate": 0.1})


def test_progress_becomes_metrics_at_its_step_when_the_last_has_come() -> None:
    metrics = tracking.MetricWriter(open_run("a9"), seconds=3600)
    metrics.add(step(1, 2))
    assert losses(metrics.run_id) == []
    metrics.add(step(2, 2))
    assert losses(metrics.run_id) == [(1, 1.0), (2, 0.5)]


def test_metrics_of_a_run_that_ends_early_are_not_lost() -> None:
    metrics = tracking.MetricWriter(open_run("a11"), seconds=3600)
    metrics.add(step(1, 999))
    metrics.send()
    metrics.send()
    assert losses(metrics.run_id) == [(1, 1.0)]


def test_metrics_are_sent_while_a_run_goes_on() -> None:
    metrics = tracking.MetricWriter(open_run("a12"), seconds=0)
    metrics.add(step(1, 999))
    assert losses(metrics.run_id) == [(1, 1.0)]


def test_more_metrics_than_one_request_takes_are_sent() -> None:
    metrics = tracking.MetricWriter(open_run("a13"), seconds=3600)
    for done in range(1, 702):
        metrics.add(step(done, 701))
    assert len(losses(metrics.run_id)) == 701


def test_scores_come_with_every_sample(tmp_path: Path) -> None:
    run_id = open_run("a10")
    card = tmp_path / "c1"
    card.mkdir()
    (card / "samples.parquet").write_bytes(b"samples")
    tracking.log_scores(run_id, {"challenger/name": 0.75}, [card])
    client = MlflowClient()
    assert client.get_run(run_id).data.metrics == {"challenger/name": 0.75}
    (kept,) = client.list_artifacts(run_id, "scorecards/c1")
    assert kept.path == "scorecards/c1/samples.parquet"


def test_the_newest_picture_of_a_training_is_kept(tmp_path: Path) -> None:
    run_id = open_run("a14")
    picture = tmp_path / "loss.png"
    for drawn in (b"first", b"second"):
        picture.write_bytes(drawn)
        tracking.log_picture(run_id, picture)
    client = MlflowClient()
    (kept,) = client.list_artifacts(run_id, "training")
    assert Path(client.download_artifacts(run_id, kept.path)).read_bytes() == b"second"


def test_a_candidate_is_a_run_below_its_searchs_and_says_why_it_was_not_chosen() -> None:
    search = tracking.open_run("support", "s1", params={}, tags={}, name="search s1")
    below = {tracking.PARENT_TAG: search}
    candidate = tracking.open_run("support", "a15", params={"r": 8}, tags=below, name="r 8")
    tracking.prune_candidate("support", "a15", "place 2 of 2 at rung 1", "FINISHED")
    run = MlflowClient().get_run(candidate)
    assert run.info.run_name == "r 8"
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == search
    assert run.data.tags["pruned"] == "place 2 of 2 at rung 1"


def test_a_candidate_that_never_began_needs_no_reason() -> None:
    open_run("a16")
    tracking.prune_candidate("support", "never", "lost", "FAILED")
    with pytest.raises(LookupError, match="never"):
        tracking.find_run("support", "never")
