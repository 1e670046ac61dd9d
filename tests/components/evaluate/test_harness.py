"""Base and adapters measured on one holdout: the scorecards, and the refusals."""

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from components import scorecard
from components.chat import chat_templates
from components.evaluate import guard_runs, harness, score_conditions
from components.evaluate.engines import adapter_checks
from components.evaluate.settings import EvaluationSettings
from components.gate.comparability import incomparable
from components.models import base
from components.schema import Progress
from components.scorecard import HOLDOUT, VALIDATION, Scorecard, ScorecardFolders
from components.store import manifest, output_folders
from components.store.output_folders import SourceGoneError
from components.train import peft_model
from components.train.recipe import Recipe
from tests.components.evaluate.conftest import finish
from tests.support import guard_files, holdouts
from tests.support.holdouts import NOW
from tests.support.model_answers import Both

SETTINGS = EvaluationSettings(precision="fp32", batch_size=2, max_new_tokens=8)


@dataclass
class Bench:
    """A snapshot and a base, with a folder for scorecards."""

    snapshot: Path
    base: Path
    root: Path
    reports: list[Progress] = field(default_factory=list[Progress])

    def measure(
        self, models: dict[str, Path | None], settings: EvaluationSettings = SETTINGS
    ) -> dict[str, Scorecard]:
        folders = self.folders(models, settings)
        return {model: scorecard.read(tasks[HOLDOUT]) for model, tasks in folders.items()}

    def folders(
        self, models: dict[str, Path | None], settings: EvaluationSettings
    ) -> ScorecardFolders:
        self.reports.clear()
        folders = harness.evaluate(
            self.snapshot,
            self.base,
            models,
            self.root,
            settings,
            report=self.reports.append,
            now=NOW,
        )
        assert folders == score_conditions.folders(
            self.snapshot, self.base, models, self.root, settings
        )
        return folders

    def stages(self) -> set[str]:
        return {report.stage for report in self.reports}


@pytest.fixture
def bench(tmp_path: Path, tiny_base: Path) -> Bench:
    return Bench(holdouts.build(tmp_path), tiny_base, tmp_path / "scorecards")


def outputs(card: Scorecard) -> list[str]:
    return [sample.output for sample in card.samples]


def copied(adapter: Path, folder: Path) -> Path:
    return Path(shutil.copytree(adapter, folder / adapter.name))


def test_prompts_that_are_longer_than_the_window_are_counted(bench: Bench, tmp_path: Path):
    whole = bench.measure({"base": None})["base"]
    lengths = sorted(len(sample.prompt) for sample in whole.samples)
    assert whole.window is not None
    assert (whole.window.prompts, whole.window.truncated) == (len(lengths), 0)
    narrow = Path(shutil.copytree(bench.base, tmp_path / "narrow"))
    config = json.loads((narrow / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    cut = replace(bench, base=narrow).measure({"base": None})["base"]
    count, most = len(lengths), SETTINGS.max_new_tokens
    assert cut.window == replace(whole.window, truncated=count, room=20 - most)


def test_right_answers_that_are_longer_than_the_most_tokens_are_counted(bench: Bench):
    def unreachable(most: int) -> int:
        card = bench.measure({"base": None}, SETTINGS.model_copy(update={"max_new_tokens": most}))
        window = card["base"].window
        assert window is not None
        assert window.max_new_tokens == most
        return window.unreachable

    assert (unreachable(1), unreachable(80)) == (3, 0)


def test_base_and_adapters_are_measured_on_one_base_under_equal_conditions(
    bench: Bench, adapters: dict[str, Path]
):
    cards = bench.measure({"base": None, **adapters})
    assert [*cards] == ["base", "challenger", "champion", "constant", "nearest"]
    asked = [cards[role] for role in ("base", "challenger", "champion")]
    assert len({tuple(outputs(card)) for card in asked}) == 3
    assert [card.adapter for card in asked] == [None, "key-challenger", "key-champion"]
    assert cards["base"].conditions == cards["challenger"].conditions
    assert [s.prompt_hash for s in cards["base"].samples] == [
        s.prompt_hash for s in cards["champion"].samples
    ]
    assert cards["base"].scores["correct"].n == 3
    assert bench.stages() == {"base", "challenger", "champion"}


def test_an_adapter_leaves_no_trace_on_the_base(
    bench: Bench, adapters: dict[str, Path], tmp_path: Path
):
    after = bench.measure({"challenger": adapters["challenger"], "base": None})["base"]
    bench.root = tmp_path / "again"
    assert outputs(after) == outputs(bench.measure({"base": None})["base"])


def test_conditions_have_everything_that_makes_scores_comparable(bench: Bench):
    conditions = bench.measure({"base": None})["base"].conditions
    assert conditions["task"] == "holdout_tools"
    assert conditions["holdout_version"] == "v1"
    assert conditions["settings"] == {
        "engine": "transformers",
        "precision": "fp32",
        "batch_size": 2,
        "max_new_tokens": 8,
    }
    assert conditions["prompt_template"] == chat_templates.template_hash(bench.base)
    assert {"task_version", "prompt_format", "machine", "libraries"} <= conditions.keys()


def test_requests_of_a_snapshot_that_is_erased_meanwhile_are_in_no_scorecard(bench: Bench):
    def erased(progress: Progress) -> None:
        output_folders.remove(bench.snapshot)

    with pytest.raises(SourceGoneError, match="was deleted meanwhile, as an erasure does"):
        harness.evaluate(
            bench.snapshot,
            bench.base,
            {"base": None},
            bench.root,
            SETTINGS,
            report=erased,
            now=NOW,
        )
    assert list(bench.root.rglob("samples.parquet")) == []


def test_finished_measurements_are_skipped(bench: Bench, adapters: dict[str, Path]):
    first = bench.measure({"base": None})
    again = bench.measure({"base": None})
    assert bench.reports == []
    assert again == first
    bench.measure({"base": None, "challenger": adapters["challenger"]})
    assert bench.stages() == {"challenger"}


def test_a_killed_evaluation_is_repeated(bench: Bench):
    card = bench.measure({"base": None})["base"]
    (bench.root / card.key / "manifest.json").unlink()
    assert bench.measure({"base": None})["base"] == card
    assert bench.stages() == {"base"}


def test_different_settings_have_a_different_scorecard(bench: Bench):
    def key(settings: EvaluationSettings) -> Path:
        models = {"base": None}
        folders = score_conditions.folders(bench.snapshot, bench.base, models, bench.root, settings)
        return folders["base"][HOLDOUT]

    assert key(SETTINGS) != key(SETTINGS.model_copy(update={"max_new_tokens": 9}))


def test_guard_tasks_have_scorecards_of_their_own(
    bench: Bench, adapters: dict[str, Path], tmp_path: Path
):
    settings = SETTINGS.model_copy(update={"tasks": (guard_files.sums(tmp_path),)})
    models: dict[str, Path | None] = {"base": None, "challenger": adapters["challenger"]}
    alone = bench.measure(models)
    folders = bench.folders(models, settings)
    cards = {model: scorecard.read(folders[model]["sums"]) for model in models}
    assert "sums" not in folders["constant"], "a baseline has no answer to other tasks"
    assert {model: tasks[HOLDOUT].name for model, tasks in folders.items()} == {
        model: card.key for model, card in alone.items()
    }
    card = cards["challenger"]
    assert (card.task, card.adapter, list(card.metrics)) == ("sums", "key-challenger", ["acc"])
    assert card.scores["acc"].n == 8
    assert card.conditions == cards["base"].conditions
    assert card.conditions["num_fewshot"] == 0
    assert outputs(card) != outputs(cards["base"])


def test_a_base_with_examples_is_a_model_of_its_own(bench: Bench):
    settings = SETTINGS.model_copy(update={"num_fewshot": 1})
    alone = bench.measure({"base": None})["base"]
    cards = bench.measure({"base": None}, settings)
    assert list(cards) == ["base", "few-shot", "constant", "nearest"]
    assert cards["base"] == alone
    assert bench.stages() == {"few-shot"}
    shown = cards["few-shot"]
    assert (shown.adapter, shown.scores["correct"].n) == (None, 3)
    assert (alone.conditions["num_fewshot"], shown.conditions["num_fewshot"]) == (0, 1)
    assert "examples" in shown.conditions
    assert outputs(shown) != outputs(alone)


def test_an_invalid_task_is_reported_before_anything_is_measured(bench: Bench, tmp_path: Path):
    settings = SETTINGS.model_copy(update={"tasks": (guard_files.sums(tmp_path, limit=2),)})
    guard_files.documents(tmp_path / "sums.jsonl", [{"question": "1 + 1"}])
    with pytest.raises(guard_runs.GuardError, match=r"sums: .*sums\.jsonl does not fit the task"):
        bench.measure({"base": None}, settings)
    assert not bench.root.exists()


def test_an_unfinished_adapter_is_refused(bench: Bench, adapters: dict[str, Path], tmp_path: Path):
    adapter = copied(adapters["challenger"], tmp_path)
    (adapter / manifest.NAME).unlink()
    with pytest.raises(FileNotFoundError):
        bench.measure({"challenger": adapter})


def test_weights_that_changed_since_training_are_refused(
    bench: Bench, adapters: dict[str, Path], tmp_path: Path
):
    adapter = copied(adapters["challenger"], tmp_path)
    shutil.copy(adapters["champion"] / adapter_checks.WEIGHTS_FILE, adapter)
    with pytest.raises(ValueError, match="changed after it was finished, so make it again"):
        bench.measure({"challenger": adapter})


def test_an_adapter_of_another_prompt_template_is_refused_with_both_hashes(
    bench: Bench, adapters: dict[str, Path], tmp_path: Path
):
    adapter = copied(adapters["challenger"], tmp_path)
    finish(bench.base, adapter, prompt_template="0123456789abcdef")
    now = chat_templates.template_hash(bench.base)
    with pytest.raises(
        chat_templates.TemplateChangedError, match=f"0123456789abcdef.* with {now};"
    ):
        bench.measure({"challenger": adapter})


def test_a_holdout_that_changed_since_it_was_frozen_is_refused(bench: Bench, tmp_path: Path):
    other = holdouts.build(tmp_path / "other", holdouts.CASES[:1])
    shutil.copy(other / "holdout.parquet", bench.snapshot)
    with pytest.raises(ValueError, match=r"holdout\.parquet hashes to"):
        bench.measure({"base": None})


@pytest.mark.slow
def test_an_almost_untrained_dora_adapter_answers_like_its_4_bit_base(bench: Bench, tmp_path: Path):
    folder = tmp_path / "key-dora"
    model, _ = base.load(bench.base, "nf4", for_training=True)
    peft_model.save_adapter(peft_model.attach_trainable(model, Recipe(use_dora=True)), folder)
    weights = load_file(folder / adapter_checks.WEIGHTS_FILE)
    for name, weight in weights.items():
        if ".lora_B." in name:
            weight += 1e-4
    save_file(weights, folder / adapter_checks.WEIGHTS_FILE)
    finish(bench.base, folder)
    nf4 = SETTINGS.model_copy(update={"precision": "nf4"})
    cards = bench.measure({"challenger": folder, "base": None}, nf4)
    assert outputs(cards["challenger"]) == outputs(cards["base"])


def test_a_4_bit_base_on_a_cpu_answers_like_its_dequantized_weights_in_fp32(bench: Bench):
    settings = SETTINGS.model_copy(update={"precision": "nf4"})
    card = bench.measure({"base": None}, settings)["base"]
    exact, tokenizer = base.load(bench.base, "nf4", for_training=False)
    asked = [sample.prompt for sample in card.samples]
    assert outputs(card) == Both(exact, tokenizer).write(asked, max_gen_toks=8)


def test_the_validation_side_has_the_holdouts_prompts_and_its_own_task(
    tmp_path: Path, tiny_base: Path
):
    cases = holdouts.CASES
    snapshot = holdouts.build(tmp_path, cases, validation=cases[:2])
    settings = SETTINGS.model_copy(
        update={"tasks": (guard_files.sums(tmp_path),), "num_fewshot": 1}
    )
    cards = {
        side: harness.evaluate(
            snapshot,
            tiny_base,
            {"base": None},
            tmp_path / "scorecards",
            settings,
            side=side,
            report=lambda _: None,
            now=NOW,
        )
        for side in (HOLDOUT, VALIDATION)
    }
    assert cards[HOLDOUT]["base"].keys() == {HOLDOUT, "sums"}
    assert cards[VALIDATION]["base"].keys() == {VALIDATION}, "guard tasks are tests, too"
    assert cards[VALIDATION].keys() == {"base", "few-shot", "constant", "nearest"}
    tested, tuned = (scorecard.read(cards[side]["base"][side]) for side in (HOLDOUT, VALIDATION))
    assert [sample.example_id for sample in tuned.samples] == ["v0", "v1"]
    alike = [(sample.prompt_hash, sample.output, sample.scores) for sample in tested.samples[:2]]
    assert [(sample.prompt_hash, sample.output, sample.scores) for sample in tuned.samples] == alike
    assert tuned.task == VALIDATION
    assert tuned.conditions["task"] == "validation_tools"
    assert incomparable(tuned, tested)


def test_an_empty_validation_side_measures_nothing(bench: Bench):
    with pytest.raises(ValueError, match=r"its validation side is empty.*validation_share"):
        harness.evaluate(
            bench.snapshot,
            bench.base,
            {"base": None},
            bench.root,
            SETTINGS,
            side=VALIDATION,
            report=lambda _: None,
            now=NOW,
        )


def test_in_16_bits_models_are_asked_again_in_other_batches(
    bench: Bench, adapters: dict[str, Path]
):
    bf16 = SETTINGS.model_copy(update={"precision": "bf16"})
    cards = bench.measure({"base": None, "challenger": adapters["challenger"]}, bf16)
    for role in ("base", "challenger"):
        card = cards[role]
        assert card.conditions["rescored"] == 1
        assert all(sample.rescored.keys() == sample.scores.keys() for sample in card.samples)
    assert {"base", "base, again", "challenger, again"} <= bench.stages()
    assert not any(sample.rescored for sample in cards["nearest"].samples), "it doesn't compute"
    again = bench.measure({"base": None, "challenger": adapters["challenger"]}, bf16)
    assert not bench.reports, "what is finished is not asked again"
    assert again == cards


def test_in_32_bits_models_are_asked_once(bench: Bench):
    card = bench.measure({"base": None})["base"]
    assert "rescored" not in card.conditions
    assert not any(sample.rescored for sample in card.samples)
    (folder,) = {tasks[HOLDOUT] for tasks in bench.folders({"base": None}, SETTINGS).values()} & {
        bench.root / card.key
    }
    assert "rescored" not in pq.read_schema(folder / "samples.parquet").names


def test_the_validation_side_which_no_gate_reads_is_asked_once(bench: Bench):
    bf16 = SETTINGS.model_copy(update={"precision": "bf16"})
    planned = score_conditions.measurements(
        bench.snapshot, bench.base, {"base": None}, bench.root, bf16, VALIDATION
    )
    assert not any(measurement.is_rescored for measurement in planned)


@pytest.mark.slow
def test_built_in_tasks_are_asked_again_too(bench: Bench):
    update = {"precision": "bf16", "built_in": ("refusals", "canaries")}
    folders = bench.folders({"base": None}, SETTINGS.model_copy(update=update))["base"]
    for task in ("refusals", "canaries"):
        card = scorecard.read(folders[task])
        assert card.conditions["rescored"] == 1
        assert all(sample.rescored.keys() == sample.scores.keys() for sample in card.samples)
