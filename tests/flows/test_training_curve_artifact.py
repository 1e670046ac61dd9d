"""A training's metrics survive kills, and its page shows the newest figures."""

import re
from pathlib import Path

from components.schema import Progress
from flows import approvals, train
from flows.jobs import runner


def test_the_history_resumes_where_a_kill_cut_it_off(tmp_path: Path):
    history = [Progress("train", step, 9, "steps", {"loss": 1.0 / step}) for step in (1, 2, 3)]
    first = train.TrainingCurve(tmp_path, "support", "run", "title")
    first.add(history[0])
    first.add(history[1])
    whole = (tmp_path / train.HISTORY).read_text()
    (tmp_path / train.HISTORY).write_text(whole + "\n" + runner.progress_line(history[1])[:-1])
    train.TrainingCurve(tmp_path, "support", "run", "title").add(history[2])
    assert train.read_curve(tmp_path) == history


def test_a_training_that_said_nothing_has_no_history(tmp_path: Path):
    assert train.read_curve(tmp_path) == []


def test_the_page_gives_each_figure_once_and_as_it_is_now(tmp_path: Path):
    (tmp_path / "loss.png").write_bytes(b"PNG")
    history = [
        Progress("train", 1, 2, "steps", {"loss": 2.0, "grad_norm": 0.5}),
        Progress("train", 2, 2, "steps", {"loss": 1.0}),
        Progress("train", 2, 2, "steps", {"validation_loss": 1.25}),
    ]
    page = train.write_curve_page("support: training of adapter a", history, tmp_path / "loss.png")
    assert "data:image/png;base64,UE5H" in page
    assert page.split("| --- | ---: | ---: |\n")[1].splitlines() == [
        "| loss | 1 | 2 of 2 |",
        "| grad norm | 0.5 | 1 of 2 |",
        "| validation loss | 1.25 | 2 of 2 |",
    ]


def test_each_workload_has_one_timeline_under_a_key_that_prefect_takes():
    keys = [approvals.artifact_key("loss", workload) for workload in ("a-b", "a.b", "a_b")]
    assert keys[0] == "loss-a-b"
    assert len({*keys}) == 3
    assert all(re.fullmatch("[a-z0-9-]+", key) for key in keys)
