"""On a real stack: a turn trains several candidates, prunes, and asks about the best of them."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.extensions.search import schedule
from components.extensions.search.run import TrialOrder, TrialOutcome, write_order, write_outcome
from components.extensions.search.schedule import TrainingPace
from components.models import base
from components.scorecard import HOLDOUT
from components.store import manifest, output_folders
from components.train.candidates import SearchCandidate
from flows import evaluate, search
from flows.settings import Settings
from flows.stack import control
from flows.workload_file import Workload
from tests.support import logins, mlflow_stores, search_courses, small_workload, terminal, tiny
from tests.support.logs import NOW
from tests.support.terminal import Terminal

SEARCH = """
search:
  over: {r: [2, 4], learning_rate: [0.02, 1.0e-4]}
  budget: {tokens: 120000}
  eta: 2
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_turn_asks_about_the_best_of_several_although_a_worker_was_killed(
    shell: Terminal, tmp_path: Path
) -> None:
    file = small_workload.write(tmp_path / "small", epochs=20)
    small_workload.add_log(file.parent, small_workload.REQUESTS, 60)
    text = file.read_text().replace("validation_share: 0}", "validation_share: 0.3}")
    file.write_text(text + SEARCH)

    turn = shell.start("turn", file)
    wait_for_progress(shell, turn)
    services = control.stack_status(shell.settings).services
    worker = next(each.process for each in services if each.name == "worker-gpu")
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    output = terminal.said_until_asked(turn)
    assert terminal.QUESTION in output, output
    assert shell.answer("approve", small_workload.WORKLOAD, "--as", "ann").returncode == 0
    assert turn.wait(timeout=120) == 0

    (adapter,) = (shell.settings.adapters / small_workload.WORKLOAD).iterdir()
    assert manifest.read(adapter)["recipe"]["learning_rate"] == 0.02  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript]
    assert_tracked(logins.mlflow(shell.settings), adapter.name)
    assert_compared_by_target(shell.settings)
    again = shell.run("turn", file)
    assert f"adapter {adapter.name} (done before)" in again.stdout, again.stdout + again.stderr


def wait_for_progress(shell: Terminal, turn: "subprocess.Popen[str]") -> None:
    """Return when a candidate is being trained."""
    while not any((shell.settings.jobs).glob("train-*/progress.json")):
        assert turn.poll() is None, turn.communicate()[0]
        time.sleep(0.1)


def assert_tracked(client: MlflowClient, winner: str) -> None:
    """Every candidate is a run below that of the search; those that lost say why."""
    experiment = client.get_experiment_by_name(small_workload.WORKLOAD)
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (search,) = [run for run in runs if run not in children]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {search.info.run_id}
    assert len(children) == 4
    assert {run.info.status for run in runs} == {"FINISHED"}
    pruned = [run for run in children if "pruned" in run.data.tags]
    assert len(pruned) == 3
    (best,) = [run for run in children if run not in pruned]
    assert best.data.tags["flywheel.adapter"] == winner
    for run in children:
        assert run.data.params["r"] in ("2", "4")
        assert client.get_metric_history(run.info.run_id, "loss")
        assert run.data.metrics["validation_loss"] >= best.data.metrics["validation_loss"] - 0.5


def assert_compared_by_target(home: Settings) -> None:
    """Each candidate has scores on validation rows, and only the winner any on the holdout."""
    (folder,) = home.jobs.glob("search-*")
    text = (folder / "search.md").read_text()
    assert re.search(r"Compared by correct_name on \d\d validation rows", text), text
    files = folder.glob("rung-*/????????????????.json")
    outcomes = [json.loads(path.read_text()) for path in files]
    assert outcomes
    assert all(record["scores"] or record["trouble"] for record in outcomes), outcomes
    assert not list(folder.glob("rung-*/*.adapter")), "what was only measured is not kept"
    folders = (home.scorecards / small_workload.WORKLOAD).iterdir()
    cards = [manifest.read(path) for path in folders]
    held_out = {str(record["adapter"]) for record in cards if record["task"] == HOLDOUT}
    winner = str(manifest.read(folder)["winner"])
    assert winner in held_out
    losers = {str(record["key"]) for record in outcomes} - {winner}
    assert not any(name.startswith(tuple(losers)) for name in held_out)


def test_candidates_that_would_be_compared_otherwise_are_another_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    tiny.build(tmp_path / "base")

    def place(**changes: object) -> Path:
        body = {
            "workload": "support",
            "base": "base",
            "curate": {"validation_share": 0.1},
            "search": {"over": {"r": [2, 4]}, "budget": {"tokens": 9}},
            "gate": {"metric": "correct_name"},
            **changes,
        }
        workload = Workload.model_validate(body, context=tmp_path)
        return search.search_folder(workload, tmp_path / "home" / "snapshots" / "support" / "s1")

    assert place(note="tell them why") == place()
    assert place(evaluate={"num_fewshot": 3}) == place()
    others = [place(gate={"metric": "correct"}), place(evaluate={"max_new_tokens": 8})]
    assert len({place(), *others}) == 3


def test_a_search_whose_best_adapter_was_deleted_is_done_again(tmp_path: Path) -> None:
    home = Settings(tmp_path, 4200, 5000)
    here, adapters = home.jobs / "search-1", home.adapters / "support"
    (here / "rung-0").mkdir(parents=True)
    (here / "rung-0" / "a1.json").write_text("its outcome")
    assert search.known_winner(home, here, adapters) is None
    assert (here / "rung-0").exists(), "it is under way"
    body = {"snapshot": "s1", "winner": "a1", "spent": 9.0}
    manifest.write(here, kind="search", now=NOW, body=body)
    (adapters / "a1").mkdir(parents=True)
    finish(adapters / "a1", "b1")
    assert search.known_winner(home, here, adapters) == adapters / "a1"
    output_folders.remove(adapters / "a1")
    assert search.known_winner(home, here, adapters) is None
    assert not here.exists()


def test_a_search_whose_jobs_were_deleted_does_not_train_over_the_adapter_that_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    planned = schedule.make_search_plan(
        search_courses.courses([[10] * 30] * 4),
        search_courses.search(tokens=10_000),
        search_courses.key_of,
    )
    here, adapters = tmp_path / "jobs" / "search-1", tmp_path / "adapters" / "support"
    assert search.surviving_winner(planned, here, adapters) is None
    best = planned.entries[1]
    (adapters / best.key).mkdir(parents=True)
    finish(adapters / best.key, "b1")
    assert search.surviving_winner(planned, here, adapters) == adapters / best.key
    order = write_order(here, TrialOrder(entry=best, rung=0))
    write_outcome(order, search_courses.outcome(TrialOrder(entry=best, rung=0), 1.5))
    assert search.surviving_winner(planned, here, adapters) is None, "it goes on"


def test_a_base_that_does_no_step_does_not_end_a_search_of_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(tmp_path))
    for name in ("a", "b"):
        (tiny.build(tmp_path / name) / "special.jinja").write_text(name)
    body = {
        "workload": "support",
        "base": "a",
        "curate": {"validation_share": 0.1},
        "search": {"over": {"base": ["a", "b"], "r": [2, 4]}, "budget": {"minutes": 9}},
    }
    workload = Workload.model_validate(body, context=tmp_path)
    folder = tmp_path / "home" / "jobs" / "search-1"
    under_way = search.SearchRun("", workload, tmp_path / "s1", folder, "")
    small_a, large_a, small_b, large_b = sorted(
        workload.candidates(), key=lambda each: (each.base, each.recipe.r)
    )

    def measured(candidate: SearchCandidate, **figures: object) -> None:
        order = search.pace_order(under_way, candidate, schedule.SearchMetric())
        outcome = {"key": order.entry.key, "rung": -1, "seconds": 5, **figures}
        write_outcome(write_order(folder, order), TrialOutcome.model_validate(outcome))

    measured(small_a, trouble="its first candidate has too little memory")
    measured(large_a, stepping=4, tokens=400)
    measured(small_b, trouble="this base has too little memory")
    measured(large_b, trouble="this base has too little memory")
    paces, spent = search.measure_paces(under_way, workload.candidates(), schedule.SearchMetric())
    assert paces == dict.fromkeys((small_a.base, small_b.base), TrainingPace(1, 100))
    assert spent == 20


def finish(adapter: Path, base_hash: str) -> None:
    manifest.write(adapter, kind="adapter", now=NOW, body={"snapshot": "s1", "base": base_hash})


def test_an_adapter_is_measured_on_the_base_that_it_was_trained_on(tmp_path: Path) -> None:
    tiny.build(tmp_path / "base")
    other = tiny.build(tmp_path / "other")
    settings = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(settings | {"max_new_tokens": 7}))
    workload = Workload.model_validate(
        {
            "workload": "support",
            "base": "base",
            "curate": {"validation_share": 0.1},
            "search": {"over": {"base": ["base", "other"]}, "budget": {"tokens": 9}},
        },
        context=tmp_path,
    )
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for trained_on in (tmp_path / "base", other):
        finish(adapter, base.content_hash(trained_on))
        assert evaluate.base_of(workload, adapter) == trained_on
    finish(adapter, "gone")
    with pytest.raises(LookupError, match=r"is not one of .*add it to"):
        evaluate.base_of(workload, adapter)
