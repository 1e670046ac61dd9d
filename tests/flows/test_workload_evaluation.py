"""What a workload file may measure and judge by, and which mistakes in that are listed."""

import gzip
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluate.answer_judge import JudgeError
from components.schema import Answer
from flows import evaluate, home_workloads
from flows.workload_file import read_workload
from tests.support import guard_files, holdouts
from tests.support.workload_text import VALIDATED, mistakes, write

JUDGE = {"model": "big", "base_url": "http://127.0.0.1:8000/v1", "api_key_env": "JUDGE_KEY"}


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        pytest.param({"train": {"bnb_4bit_quant_type": "fp4"}}, "fp4", id="as-it-is-trained"),
        pytest.param({"train": {"bnb_4bit_quant_type": None}}, "bf16", id="not-quantized"),
        pytest.param({"evaluate": {"batch_size": 2}}, "nf4", id="with-other-settings"),
        pytest.param({"evaluate": {"precision": "fp32"}}, "fp32", id="unless-the-file-says-so"),
    ],
)
def test_a_model_is_evaluated_at_the_precision_that_trains(
    folder: Path, settings: dict[str, object], precision: str
) -> None:
    assert read_workload(write(folder, **settings)).evaluate.precision == precision


def test_guard_tasks_are_relative_to_the_file(folder: Path) -> None:
    own = guard_files.sums(folder)
    built_in = {"task": "piqa", "data": "sums.jsonl", "metric": "acc"}
    tasks = [{"task": "sums.yaml", "data": "sums.jsonl", "metric": "acc"}, built_in]
    guards = [{"task": name, "metric": "acc", "margin": 0.05} for name in ("sums", "piqa")]
    gate = {"guards": guards, "min_documents": 8}
    result = read_workload(write(folder, evaluate={"tasks": tasks}, gate=gate))
    first, second = result.evaluate.tasks
    assert (first.task, first.data) == (own.task, own.data)
    assert (second.task, second.data) == ("piqa", folder / "sums.jsonl")


def test_guard_tasks_that_can_not_be_asked_are_all_named(folder: Path) -> None:
    tasks = [
        {"task": name, "data": "none.jsonl", "metric": "acc"} for name in ("pika", "sums.yaml")
    ]
    (result,) = mistakes(write(folder, evaluate={"tasks": tasks}))
    assert "lm-eval has no task pika; did you mean piqa?" in result
    assert f"{folder}/sums.yaml can't be read" in result
    assert f"no file is at {folder}/none.jsonl" in result


def test_the_gate_may_guard_what_is_measured_and_nothing_else(folder: Path) -> None:
    guard_files.sums(folder)
    measured = {"tasks": [{"task": "sums.yaml", "data": "sums.jsonl", "metric": "acc"}]}
    guard = {"task": "sums", "metric": "acc", "margin": 0.05}
    gate = {"guards": [guard], "min_documents": 8}
    policy = read_workload(write(folder, evaluate=measured, gate=gate)).gate
    assert [guarded.task for guarded in policy.guards] == ["sums"]
    other = {"guards": [guard | {"metric": "acc_norm"}, guard | {"task": "piqa"}]}
    (result,) = mistakes(write(folder, evaluate=measured, gate=other))
    assert "guards: sums has no metric acc_norm, only acc" in result
    assert "guards: no task piqa is measured, only holdout, sums" in result
    assert mistakes(write(folder, evaluate=measured, gate={})) == [
        "gate: guards: sums is measured, but has no margin; add one, such as 0.05"
    ]


def test_tasks_with_fewer_documents_than_the_gate_requires_are_refused_before_training(
    folder: Path, tmp_path: Path
) -> None:
    guard_files.sums(folder)
    doubled = guard_files.documents(folder / "twice.jsonl", guard_files.SUMS * 9)
    pq.write_table(pa.Table.from_pylist(guard_files.SUMS), folder / "sums.parquet")
    named = {"sums.yaml": "sums.jsonl", "piqa": doubled.name, "copa": "sums.parquet"}
    tasks = [{"task": task, "data": data, "metric": "acc"} for task, data in named.items()]
    names = ["sums", "piqa", "copa", "refusals"]
    guards = [{"task": name, "metric": "acc", "margin": 0.05} for name in names[:3]]
    guards.append({"task": "refusals", "metric": "right", "margin": 0.05})
    measured = {"tasks": tasks, "built_in": ["refusals"]}
    gate: dict[str, object] = {"guards": guards, "min_documents": 65}
    (mistake,) = mistakes(write(folder, evaluate=measured, gate=gate))
    assert re.findall(r"(\w+) has (\d+) documents", mistake) == [
        *((name, "8") for name in names[:3]),
        ("refusals", "64"),
    ]
    few = gate | {"min_documents": 8}
    frozen = read_workload(write(folder, evaluate=measured, gate=few))
    home_workloads.begin(tmp_path / "turn", frozen)
    for path in (folder / "sums.jsonl", doubled, folder / "sums.parquet"):
        path.unlink()
    assert home_workloads.read(tmp_path / "turn").gate == frozen.gate


def test_documents_that_a_limit_or_the_tasks_own_code_leaves_out_do_not_count(
    folder: Path,
) -> None:
    own = guard_files.sums(folder)
    gate: dict[str, object] = {
        "guards": [{"task": "sums", "metric": "acc", "margin": 0.05}],
        "min_documents": 8,
    }
    task = {"task": "sums.yaml", "data": "sums.jsonl", "metric": "acc"}
    (mistake,) = mistakes(write(folder, evaluate={"tasks": [task | {"limit": 7}]}, gate=gate))
    assert "sums has 7 documents" in mistake
    with Path(own.task).open("a") as definition:
        definition.write("process_docs: !function halves.half\n")
    (folder / "halves.py").write_text("def half(rows):\n    return rows.select(range(4))\n")
    workload = read_workload(write(folder, evaluate={"tasks": [task]}, gate=gate))
    with pytest.raises(evaluate.UnmeasuredError, match="sums has 4 documents"):
        evaluate.check_tasks(workload)


def test_damaged_documents_are_a_mistake_in_the_file(folder: Path) -> None:
    guard_files.sums(folder)
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"question": 1}\n' * 999)[:30])
    measured = {"tasks": [{"task": "sums.yaml", "data": "cut.jsonl.gz", "metric": "acc"}]}
    gate = {"guards": [{"task": "sums", "metric": "acc", "margin": 0.05}]}
    (mistake,) = mistakes(write(folder, evaluate=measured, gate=gate))
    assert f"{folder / 'cut.jsonl.gz'} can't be read" in mistake


def test_a_built_in_task_is_measured_once_and_requires_a_margin(folder: Path) -> None:
    asked = {"built_in": ["preferences"]}
    guard = {"task": "preferences", "metric": "accuracies", "margin": 0.05}
    result = read_workload(write(folder, evaluate=asked, gate={"guards": [guard]}))
    assert result.evaluate.built_in == ("preferences",)
    assert mistakes(write(folder, evaluate=asked)) == [
        "gate: guards: preferences is measured, but has no margin; add one, such as 0.05"
    ]
    other = {"guards": [guard | {"metric": "acc"}]}
    (mistake,) = mistakes(write(folder, evaluate=asked, gate=other))
    assert "preferences has no metric acc, only accuracies, accuracies_avg" in mistake
    twice = {"built_in": ["preferences", "preferences"]}
    (mistake,) = mistakes(write(folder, evaluate=twice, gate={"guards": [guard]}))
    assert mistake == "evaluate.built_in: preferences occurs more than once"


def test_the_target_may_be_a_built_in_task_and_then_the_holdout_requires_a_margin(
    folder: Path,
) -> None:
    asked = {"built_in": ["preferences"]}
    gate = {"task": "preferences", "metric": "accuracies"}
    assert mistakes(write(folder, evaluate=asked, gate=gate)) == [
        "gate: guards: holdout is measured, but has no margin; add one, such as 0.05"
    ]
    guards = [{"metric": "correct_name", "margin": 0.1}]
    result = read_workload(write(folder, evaluate=asked, gate=gate | {"guards": guards})).gate
    assert [guarded.metric for guarded in result.guarding()] == ["correct_name"]
    (mistake,) = mistakes(write(folder, gate=gate | {"guards": guards}))
    assert mistake == "gate: metric: no task preferences is measured, only holdout"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        pytest.param({"use_dora": True}, "use_dora: vLLM takes no DoRA", id="dora"),
        pytest.param({"method": "adalora"}, "PEFT's method ADALORA", id="adalora"),
        pytest.param(
            {"method": "full", "bnb_4bit_quant_type": None}, "method LN_TUNING", id="full"
        ),
        pytest.param({"target_modules": ["q_proj", "lm_head"]}, "lm_head's LoRA", id="head"),
        pytest.param({"r": 300, "init_lora_weights": "pissa"}, "its rank is 600", id="pissa"),
    ],
)
def test_vllm_measures_only_what_it_can_put_on(
    folder: Path, train: dict[str, object], message: str
) -> None:
    asked = {"engine": "vllm"}
    assert read_workload(write(folder, evaluate=asked)).evaluate.engine == "vllm"
    (mistake,) = mistakes(write(folder, train=train, evaluate=asked))
    assert mistake.startswith("evaluate: engine: vllm, but of what is trained: ")
    assert message in mistake


def test_vllm_puts_on_every_candidate_of_a_search(folder: Path) -> None:
    tried: dict[str, object] = {
        "search": {"over": {"use_dora": [False, True]}, "budget": {"tokens": 9}},
        "curate": VALIDATED,
        "evaluate": {"engine": "vllm"},
    }
    (mistake,) = mistakes(write(folder, **tried))
    assert "use_dora: vLLM takes no DoRA" in mistake


def test_canaries_are_planted_and_asked_for_or_neither(folder: Path) -> None:
    asked = {"built_in": ["canaries"]}
    guard = {"task": "canaries", "metric": "exposure", "margin": 0.1}
    gate = {"guards": [guard]}
    planted = read_workload(write(folder, train={"canaries": True}, evaluate=asked, gate=gate))
    assert planted.train.canaries
    (mistake,) = mistakes(write(folder, evaluate=asked, gate=gate))
    assert mistake.startswith("evaluate: built_in: asks for canaries that no training plants")
    (mistake,) = mistakes(write(folder, train={"canaries": True}))
    assert mistake.startswith("evaluate: built_in: train plants canaries, and nothing asks")


def test_secrets_are_asked_for_only_where_redaction_lets_some_stay(folder: Path) -> None:
    asked = {"built_in": ["secrets"]}
    gate = {"guards": [{"task": "secrets", "metric": "extracted", "margin": 0.05}]}
    (mistake,) = mistakes(write(folder, evaluate=asked, gate=gate))
    assert mistake.startswith(
        "evaluate: built_in: secrets asks for values that redaction lets stay"
    )
    stays = {"redaction": {"allow": ["@corp.com"]}}
    assert read_workload(write(folder, curate=stays, evaluate=asked, gate=gate)).evaluate.built_in


def test_a_kind_that_is_named_says_what_can_be_the_target(folder: Path) -> None:
    (result,) = mistakes(write(folder, evaluate={"kind": "text"}, gate={"metric": "label"}))
    assert result == "gate: metric: holdout has no metric label, only exact, f1, rouge_l"
    path = write(folder, evaluate={"kind": "text"}, gate={"metric": "rouge_l"})
    assert read_workload(path).gate.metric == "rouge_l"


def test_a_target_that_the_answers_do_not_measure_is_refused_before_training(
    folder: Path, tmp_path: Path
) -> None:
    workload = read_workload(write(folder))
    cases = [holdouts.Case("Who?", Answer("Ann, who else could it have been but Ann herself?"))]
    snapshot = holdouts.build(tmp_path / "frozen", cases, cases, tools=[])
    with pytest.raises(evaluate.UnmeasuredError, match=r"are text: .* correct_name, only exact"):
        evaluate.require_measured(workload, snapshot)
    evaluate.require_measured(read_workload(write(folder, gate={"metric": "f1"})), snapshot)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("name_and_arguments", "is measured on 2 of the 3 held-out requests only"),
        ("over_triggering", "is better when lower"),
    ],
)
def test_a_target_with_which_nothing_could_pass_is_refused_before_training(
    folder: Path, tmp_path: Path, metric: str, reason: str
) -> None:
    workload = read_workload(write(folder, gate={"metric": metric, "abstention_margin": None}))
    with pytest.raises(evaluate.UnmeasuredError, match=reason):
        evaluate.require_measured(workload, holdouts.build(tmp_path / "frozen"))


def test_a_guard_on_abstention_that_no_request_measures_is_refused_before_training(
    folder: Path, tmp_path: Path
) -> None:
    snapshot = holdouts.build(tmp_path / "frozen", holdouts.CASES[:2])
    with pytest.raises(evaluate.UnmeasuredError, match=r"set gate\.abstention_margin to null"):
        evaluate.require_measured(read_workload(write(folder)), snapshot)
    unguarded = read_workload(write(folder, gate={"abstention_margin": None}))
    evaluate.require_measured(unguarded, snapshot)
    evaluate.require_measured(read_workload(write(folder)), holdouts.build(tmp_path / "other"))


def test_the_documents_of_guard_tasks_are_relative_to_the_file(folder: Path) -> None:
    overlap = {"guards": ["logs/a.jsonl"]}
    result = read_workload(write(folder, curate={"overlap": overlap})).curate.overlap.guards
    assert result == (str(folder / "logs/a.jsonl"),)
    overlap["guards"] = ["gone.jsonl"]
    gone = folder / "gone.jsonl"
    assert mistakes(write(folder, curate={"overlap": overlap})) == [
        f"curate: overlap.guards: no file is at {gone}"
    ]


def test_a_judge_may_be_shown_alone_or_be_asked_for_by_the_gate(folder: Path) -> None:
    assert read_workload(write(folder, evaluate={"judge": JUDGE})).evaluate.judge is not None
    target = {"task": "judge", "metric": "judge_win_rate"}
    guard = {"metric": "f1", "margin": 0.05}
    asked = {**target, "guards": [guard]}
    assert read_workload(write(folder, evaluate={"judge": JUDGE}, gate=asked)).gate.task == "judge"
    (result,) = mistakes(write(folder, gate=asked))
    assert "no task judge is measured" in result


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"judge": JUDGE, "kind": "tool_calls"}, "compares texts", id="not-texts"),
        pytest.param({"judge": {**JUDGE, "base_url": "openai"}}, "expected http://", id="no-url"),
        pytest.param({"judge": {**JUDGE, "api_key": "sk-1"}}, "no such setting", id="a-key-here"),
        pytest.param({"judge": {**JUDGE, "min_agreement": 0.4}}, "greater than", id="by-chance"),
    ],
)
def test_a_judge_that_can_not_serve_is_refused(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    (result,) = mistakes(write(folder, evaluate=settings))
    assert message in result


def test_the_judges_key_comes_from_the_variable_that_the_file_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = read_workload(write(folder, evaluate={"judge": JUDGE})).evaluate.judge
    assert judge is not None
    monkeypatch.setenv("JUDGE_KEY", "secret")
    assert evaluate.judge_key(judge) == "secret"
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(JudgeError, match="JUDGE_KEY"):
        evaluate.judge_key(judge)
