"""A workload file is read whole, or every mistake in it is listed and nothing is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.utilities.collections import visit_collection

from components.train.recipe import Recipe
from flows.workload_file import Workload, read_workload
from tests.support import ssh, terminal
from tests.support.workload_text import VALIDATED, logs_of, mistakes, places, write


def test_a_file_without_settings_gets_the_defaults_and_paths_relative_to_it(folder: Path) -> None:
    workload = read_workload(write(folder))
    assert workload.base == folder / "base"
    assert places(logs_of(workload)) == [folder / "logs/a.jsonl", folder / "logs/b.jsonl"]
    assert len(workload.traffic().inputs) == 2
    assert workload.train.seed == 0


def test_reading_a_file_waits_for_nothing_that_is_slow_to_import() -> None:
    slow = "{'prefect', 'scipy', 'torch', 'mlflow', 'matplotlib'}"
    code = f"import sys, flows.workload_file; print(sorted({slow} & set(sys.modules)))"
    python = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert python.stdout == "[]\n"


def test_sets_to_replay_are_relative_to_the_file(folder: Path) -> None:
    balance = {"replay": {"sources": ["logs/a.jsonl"], "share": 0.2}}
    replay = read_workload(write(folder, curate={"balance": balance})).curate.balance.replay
    assert replay is not None
    assert replay.sources == [folder / "logs/a.jsonl"]
    balance["replay"]["sources"] = ["gone.jsonl"]
    result = mistakes(write(folder, curate={"balance": balance}))
    gone = folder / "gone.jsonl"
    assert result == [f"curate: balance.replay.sources: nothing is at {gone}"]


def test_a_teacher_is_relative_to_the_file_and_is_a_model(folder: Path) -> None:
    teacher = {"kind": "distillation", "teacher_model_name_or_path": "base"}
    result = read_workload(write(folder, train={"objective": teacher})).train.objective
    assert result.kind == "distillation"
    assert result.teacher_model_name_or_path == folder / "base"
    teacher["teacher_model_name_or_path"] = "logs"
    (mistake,) = mistakes(write(folder, train={"objective": teacher}))
    assert mistake.startswith("train: objective.teacher_model_name_or_path: ")
    assert mistake.endswith(
        "has neither config.json nor adapter_config.json, expected a model's or an adapter's folder"
    )


def test_a_temperature_without_a_budget_is_a_mistake(folder: Path) -> None:
    (result,) = mistakes(write(folder, curate={"balance": {"temperature": 2}}))
    assert result == "curate.balance: temperature divides a budget: set max_rows or max_tokens"


def test_a_task_takes_a_workload_whose_approvers_have_keys(folder: Path) -> None:
    listed = [{"name": "ada", "keys": [ssh.public(ssh.keygen(folder / "keys"))]}]
    workload = read_workload(write(folder, approve={"proof": "signature", "approvers": listed}))
    sections = visit_collection(workload, lambda part: part, return_data=True)
    assert sections.approve.rules().people[0].signers


def test_every_mistake_is_listed_at_once(folder: Path) -> None:
    path = write(
        folder,
        workload="Two Words",
        base="elsewhere",
        sources={"logs": ["logs/*.gz", "more/*"], "feedbak": []},
        turn_schedule="every night",
        train={"r": 0, "lerning_rate": 1},
        gate={"metric": "nice"},
        note=None,
        evaluation={},
    )
    assert mistakes(path) == [
        "workload: expected at most 63 of a to z, 0 to 9, '.', '_' and '-', and no mark first "
        "(found 'Two Words')",
        f"base: {folder}/elsewhere has no config.json, expected a model folder",
        f"sources.logs: nothing matches {folder}/logs/*.gz, {folder}/more/*",
        "sources.feedbak: no such setting; did you mean feedback?",
        "note: Input should be a valid string (found None)",
        "turn_schedule: is not a cron line: 'every night'",
        "train.r: Input should be greater than or equal to 1 (found 0)",
        "train.lerning_rate: no such setting; did you mean learning_rate?",
        "gate: metric: holdout has no metric nice, only valid_json, schema_valid, name, "
        "name_and_arguments, abstention, over_triggering, correct_name, correct, label, choice, "
        "fields, exact, f1, rouge_l",
        "evaluation: no such setting; did you mean evaluate?",
    ]


def test_mistakes_between_sections_are_listed_with_those_within_them(folder: Path) -> None:
    """Also where a guard can only be left out as a whole; nothing is listed twice."""
    path = write(
        folder,
        curate={"holdout_share": 3, "validation_share": 0},
        train={"r": 0, "eval_steps": 5},
        evaluate={"max_new_tokens": 0},
        gate={"metric": "nice", "alpha": 2, "guards": [{"metric": "acc", "margin": 5}]},
    )
    listed = mistakes(path)
    assert listed[:-2] == [
        "curate.holdout_share: Input should be less than 1 (found 3; 3 % is 0.03)",
        "train.r: Input should be greater than or equal to 1 (found 0)",
        "evaluate.max_new_tokens: Input should be greater than or equal to 1 (found 0)",
        "gate.alpha: Input should be less than 0.5 (found 2; 2 % is 0.02)",
        "gate.guards.0.margin: Input should be less than or equal to 1 (found 5; 5 % is 0.05)",
    ]
    assert listed[-2].startswith("train: eval_steps needs rows that are never learned")
    assert listed[-1].startswith("gate: metric: holdout has no metric nice")


@pytest.mark.parametrize("name", ["validation_share", "validation_shar"])
def test_no_mistake_is_listed_that_mending_another_may_mend(folder: Path, name: str) -> None:
    curate = {"redaction": {"allow": 5}, "validation_share": 0, name: "10%"}
    path = write(folder, curate=curate, train={"eval_steps": 5}, evaluate={"built_in": ["secrets"]})
    listed = {mistake.partition(": ")[0] for mistake in mistakes(path)}
    assert listed == {"curate.redaction.allow", f"curate.{name}", "gate"}  # which wants a guard


def test_no_task_is_missed_that_the_right_name_may_measure(folder: Path) -> None:
    guards = [{"task": "refusals", "metric": "refusals", "margin": 0.1}]
    path = write(folder, evaluate={"built_in": ["refusal"]}, gate={"guards": guards})
    (mistake,) = mistakes(path)
    assert mistake.startswith("evaluate.built_in.0: ")


def test_a_value_of_another_kind_is_named_with_what_the_setting_takes(folder: Path) -> None:
    curate = {
        "holdout_share": 30,
        "validation_share": "10%",
        "languages": "english",
        "at_most": True,
        "near": {"jaccard": 130},
    }
    train = {"r": True, "lora_alpha": "many", "objective": "dpoo", "use_rslora": 3}
    gate = {"floor": True, "alpha": 0.7, "guards": [{"task": "copa", "metric": "acc", "margin": 5}]}
    languages = "Input should be 'any' or 'as_asked'; Input should be a valid tuple"
    assert mistakes(write(folder, curate=curate, train=train, gate=gate)) == [
        "curate.at_most: Input should be a valid integer, unable to parse string as an integer "
        "(found 'true')",
        "curate.holdout_share: Input should be less than 1 (found 30; 30 % is 0.3)",
        "curate.validation_share: Input should be a valid number, unable to parse string as a "
        "number (found '10%'; 10 % is 0.1)",
        f"curate.languages: {languages} (found 'english')",
        "curate.near.jaccard: Input should be less than or equal to 1 (found 130)",
        "train.objective: expected one of 'sft', 'distillation', 'dpo', 'orpo', 'kto' "
        "(found 'dpoo')",
        "train.r: Input should be a valid integer, unable to parse string as an integer "
        "(found 'true')",
        "train.lora_alpha: Input should be a valid integer, unable to parse string as an integer "
        "(found 'many')",
        "train.use_rslora: Input should be a valid boolean, unable to interpret input (found 3)",
        "gate.alpha: Input should be less than 0.5 (found 0.7)",
        "gate.floor: Input should be a valid number, unable to parse string as a number "
        "(found 'true')",
        "gate.guards.0.margin: Input should be less than or equal to 1 (found 5; 5 % is 0.05)",
    ]


def test_a_setting_like_no_other_is_answered_with_those_that_are_known(folder: Path) -> None:
    assert mistakes(write(folder, train={"max_steps": 9}, curate={"near": {"words": 3}})) == [
        "curate.near.words: no such setting; known here: jaccard",
        f"train.max_steps: no such setting; known here: {', '.join(sorted(Recipe.model_fields))}",
    ]


def test_an_empty_mapping_misses_what_has_no_default(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("{}")
    assert mistakes(tmp_path / "w.yaml") == [
        f"{name}: is missing"
        for name, field in Workload.model_fields.items()
        if field.is_required()
    ]


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        pytest.param(b"- a\n- b\n", "holds an array, expected a mapping of settings", id="a-list"),
        pytest.param(b"", "is empty, expected a mapping of settings", id="nothing"),
        pytest.param(b"base: [\n", "is not YAML: while parsing a flow node", id="open-bracket"),
        pytest.param(
            b"train: {r: 8, r: 16}\n",
            "is not YAML: `r` is there twice, and only one of them could count",
            id="a-key-twice",
        ),
        pytest.param(b"base: \xff\xfe\n", "is not YAML: 'utf-8' codec can't decode", id="latin"),
        pytest.param(b"note: 2027-13-01\n", "is not YAML: month must be in 1..12", id="a-date"),
    ],
)
def test_what_is_no_yaml_mapping_is_named(tmp_path: Path, content: bytes, mistake: str) -> None:
    (tmp_path / "w.yaml").write_bytes(content)
    (message,) = mistakes(tmp_path / "w.yaml")
    assert message.startswith(mistake)


def test_settings_that_a_merge_brings_may_be_set_otherwise(folder: Path) -> None:
    text = write(folder).read_text() + "train: {<<: {r: 8, lora_alpha: 8}, r: 4}\n"
    (folder / "support.yaml").write_text(text)
    assert read_workload(folder / "support.yaml").train.r == 4


def test_off_and_norwegian_are_no_booleans(folder: Path) -> None:
    text = write(folder).read_text()
    text += "curate: {redaction: {off: [ip]}, languages: [no, en]}\n"
    text += "train: {use_rslora: yes}\nevaluate: {constrained: off}\n"
    (folder / "support.yaml").write_text(text)
    workload = read_workload(folder / "support.yaml")
    assert workload.curate.redaction.off == ("ip",)
    assert workload.curate.languages == ("no", "en")
    assert workload.train.use_rslora
    assert workload.evaluate.constrained is False


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "w.yaml") == ["can't be read: No such file or directory"]


@pytest.mark.parametrize("command", ["check", pytest.param("turn", marks=pytest.mark.slow)])
def test_a_wrong_file_ends_the_command_with_2_before_anything_is_started(
    folder: Path, command: str
) -> None:
    shell = terminal.in_home(folder / "home", is_forked=True)
    shell.settings.home.mkdir()
    ended = shell.run(command, write(folder, base="elsewhere", train={"r": -1}))
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"{folder}/support.yaml: 2 mistake(s)",
        f"base: {folder}/elsewhere has no config.json, expected a model folder",
        "train.r: Input should be greater than or equal to 1 (found -1)",
    ]
    assert shell.processes() == []


def test_of_several_files_each_is_checked_and_one_mistake_ends_with_2(folder: Path) -> None:
    shell = terminal.in_home(folder / "home", is_forked=True)
    right = write(folder).rename(folder / "right.yaml")
    ended = shell.run("check", folder / "missing.yaml", write(folder, base="elsewhere"), right)
    assert ended.returncode == 2
    assert ended.stdout.startswith(f"{right}: workload support, ")
    assert [line for line in ended.stderr.splitlines() if "mistake(s)" in line] == [
        f"{folder}/missing.yaml: 1 mistake(s)",
        f"{folder}/support.yaml: 1 mistake(s)",
    ]


SEARCH = {"over": {"r": [8, 16], "base": ["base", "other"]}, "budget": {"tokens": 1000}}


def test_a_search_tries_every_combination_with_bases_relative_to_the_file(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/config.json").write_text("{}")
    workload = read_workload(
        write(folder, search=SEARCH, curate=VALIDATED, train={"lora_alpha": 7})
    )
    tried = [(candidate.recipe.r, candidate.base) for candidate in workload.candidates()]
    assert sorted(tried) == [(r, folder / name) for r in (8, 16) for name in ("base", "other")]
    assert {candidate.recipe.lora_alpha for candidate in workload.candidates()} == {7}


def test_without_a_search_there_are_no_candidates(folder: Path) -> None:
    assert read_workload(write(folder)).candidates() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"curate": {"validation_share": 0}},
            "search: compares candidates on rows that none",
            id="rows",
        ),
        pytest.param({}, "search: {folder}/other has no config.json", id="no base"),
        pytest.param(
            {"search": {"over": {"rank": [8, 16]}, "budget": {"tokens": 9}}},
            "search: over.rank: is no setting of train",
            id="no setting",
        ),
        pytest.param(
            {"search": {"over": {"r": [8, 16]}, "budget": {}}},
            "search.budget: expected either tokens or minutes",
            id="no budget",
        ),
        pytest.param(
            {
                "search": {"over": {"r": [8, 16]}, "budget": {"minutes": 9}},
                "train": {"objective": "dpo"},
            },
            "search: compares how likely candidates find right answers, which objective dpo",
            id="no answers",
        ),
        pytest.param(
            {
                "search": {"over": {"r": [8, 9]}, "budget": {"minutes": 9}},
                "train": {"eval_steps": 5},
                "curate": {"validation_share": 0},
            },
            "train: eval_steps needs rows that are never learned",
            id="nothing to measure",
        ),
    ],
)
def test_a_search_that_cannot_be_is_a_mistake(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    sections = {"search": SEARCH, "curate": VALIDATED} | settings
    beginning = message.format(folder=folder)
    assert any(mistake.startswith(beginning) for mistake in mistakes(write(folder, **sections)))


@pytest.mark.timeout(20)
def test_only_a_regular_file_of_a_megabyte_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    large = tmp_path / "large.yaml"
    large.write_text("#" * (2**20 + 1))
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        assert mistakes(path) == ["can't be read: it is not a regular file"]
    assert mistakes(large) == ["can't be read: it is larger than 1 MiB"]
