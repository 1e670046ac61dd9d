"""A workload's guard tasks are checked at once, and every mistake in them is reported."""

import gzip
import json
from pathlib import Path

import pytest

from components.evaluate import guards
from components.evaluate.settings import GuardTask
from tests.support import guard_files
from tests.support.guard_files import sums, written


def mistakes(*tasks: GuardTask) -> list[str]:
    return guards.guard_mistakes(tasks)


def test_valid_tasks_have_no_mistakes(tmp_path: Path):
    piqa = sums(tmp_path, task="piqa")
    assert mistakes(piqa, sums(tmp_path), written(tmp_path, filter="first-word")) == []


def test_every_mistake_of_every_task_is_reported(tmp_path: Path):
    listed = mistakes(
        sums(tmp_path, task="pika", data=tmp_path / "none.jsonl"),
        sums(tmp_path, metric="accuracy", num_fewshot=2),
    )
    assert listed == [
        "lm-eval has no task pika; did you mean piqa?",
        f"pika: data: no file is at {tmp_path}/none.jsonl",
        "sums: has no metric accuracy, only acc, acc_norm",
        "sums: num_fewshot is 2, so a file of examples is required",
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"task": "mmlu"}, "mmlu is a group of tasks", id="a-group"),
        pytest.param({"task": "squadv2"}, "squadv2 is a task in Python", id="in-python"),
        pytest.param({"task": "humaneval", "metric": "pass_at_k"}, "runs code that", id="code"),
        pytest.param({"task": "wikitext", "metric": "word_perplexity"}, "perplexity", id="rolling"),
        pytest.param({"filter": "strict"}, "has no filter strict, only none", id="unknown-filter"),
        pytest.param({"examples": "sums.jsonl"}, "but num_fewshot is 0", id="unused-examples"),
    ],
)
def test_an_invalid_guard_is_refused_with_its_mistake(
    tmp_path: Path, settings: dict[str, str], sentence: str
):
    fields = {
        **settings,
        **({"examples": tmp_path / "sums.jsonl"} if "examples" in settings else {}),
    }
    (mistake,) = mistakes(sums(tmp_path, **fields))
    assert sentence in mistake


def test_several_filters_require_a_choice(tmp_path: Path):
    (mistake,) = mistakes(written(tmp_path))
    assert mistake == "written: has the filters first-word, as-it-is: name one under filter"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("task: [", "is not YAML", id="no-yaml"),
        pytest.param("- a", "holds list, expected a mapping", id="a-list"),
        pytest.param("group: a\ntask: [b]", "does not describe a single task", id="a-group"),
        pytest.param("include: other.yaml", "other.yaml can't be read", id="include-is-missing"),
        pytest.param("include: own.yaml", "includes itself", id="a-cycle"),
        pytest.param("task: holdout", "is what the workload's own requests are called", id="name"),
    ],
)
def test_a_file_that_is_not_a_task_is_reported(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "own.yaml").write_text(text)
    (mistake,) = mistakes(sums(tmp_path, task=str(tmp_path / "own.yaml")))
    assert sentence in mistake


@pytest.mark.parametrize("name", ["docs.csv", "docs.jsonl"])
def test_an_unreadable_file_of_documents_is_reported(tmp_path: Path, name: str):
    (tmp_path / name).write_text("")
    (mistake,) = mistakes(sums(tmp_path, data=tmp_path / name))
    assert name in mistake


def test_a_task_may_occur_once(tmp_path: Path):
    assert mistakes(sums(tmp_path), sums(tmp_path, metric="acc_norm")) == [
        "sums occurs 2 times, expected once"
    ]


def test_conditions_change_with_anything_that_could_change_a_score(tmp_path: Path):
    def conditions() -> str:
        return json.dumps(guards.guard_conditions(sums(tmp_path)))

    first = conditions()
    assert conditions() == first
    assert '"task_version": "3"' in first
    with gzip.open(tmp_path / "same.jsonl.gz", "wb") as file:
        file.write((tmp_path / "sums.jsonl").read_bytes())
    guard_files.documents(tmp_path / "sums.jsonl", guard_files.SUMS[:-1])
    second = conditions()
    (tmp_path / "sums.yaml").write_text(guard_files.CHOICE.replace("What is", "How much is"))
    third = conditions()
    few = json.dumps(guards.guard_conditions(sums(tmp_path, limit=4)))
    other = json.dumps(guards.guard_conditions(sums(tmp_path, metric="acc_norm")))
    assert len({first, second, third, few, other}) == 5


def test_a_changed_function_changes_the_conditions(tmp_path: Path):
    scoring = tmp_path / "scoring.py"
    scoring.write_text("def process_results(doc, results): return {'acc': 1.0}\n")
    (tmp_path / "sums.yaml").write_text(
        guard_files.CHOICE + "process_results: !function scoring.process_results\n"
    )
    first = guards.guard_conditions(sums(tmp_path))
    scoring.write_text("def process_results(doc, results): return {'acc': 0.0}\n")
    assert guards.guard_conditions(sums(tmp_path)) != first
