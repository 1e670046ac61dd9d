"""An evaluation with a judge: answers, verdicts and what is logged of them."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from components import scorecard
from components.evaluate.settings import EvaluationSettings
from components.register import tracking
from components.schema import Answer
from components.scorecard import HOLDOUT
from components.store import output_folders
from flows import evaluate
from flows.workload_file import Workload
from tests.components.evaluate.conftest import build_adapter
from tests.support import holdouts, tiny
from tests.support.holdouts import Case
from tests.support.judge_bench import Judge, longer, serving


@pytest.mark.slow
def test_answers_are_judged_in_the_evaluation_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JUDGE_KEY", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    base = tiny.build(tmp_path / "base")
    adapter = build_adapter(base, tmp_path / "home/adapters/judged/key-one", 1)
    cases = [Case(f"question {number}", Answer("yes")) for number in range(3)]
    snapshot = holdouts.build(tmp_path, cases, cases[:1], tools=[])
    run_id = tracking.open_run("judged", adapter.name, params={}, tags={})
    judge = Judge(longer, key="secret")

    with serving(judge):
        settings = EvaluationSettings(
            precision="fp32",
            max_new_tokens=4,
            kind="text",
            judge=judge.settings.model_copy(update={"api_key_env": "JUDGE_KEY"}),
        )
        workload = Workload.model_construct(
            workload="judged", base=base, evaluate=settings, search=None
        )
        with disable_run_logger():  # the task's own work, without a server
            evaluate.run_evaluation.fn(workload, snapshot, adapter)
            questions = len(judge.asked)
            evaluate.run_evaluation.fn(workload, snapshot, adapter)
    assert len(judge.asked) == questions
    cards = evaluate.scorecard_folders(workload, snapshot, adapter)
    assert all(output_folders.fetch(each) for each in evaluate.all_folders(cards))
    judged, answered = (scorecard.read(cards["challenger"][task]) for task in ("judge", HOLDOUT))
    assert [each.output for each in judged.samples] == [each.output for each in answered.samples]
    assert judged.scores["judge_win_rate"].n == 3
    metrics = MlflowClient().get_run(run_id).data.metrics
    assert metrics["challenger/judge/judge_win_rate"] == judged.scores["judge_win_rate"].value
