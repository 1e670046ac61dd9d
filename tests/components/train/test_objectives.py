"""Each objective learns from its view of the snapshot, and refuses others."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from components.schema import Answer, Progress
from components.train import fit, training_examples
from components.train.micro_batches import BatchLayout, collate
from components.train.recipe import Distillation, Dpo, Kto, Objective, Orpo, Recipe, Sft
from components.train.training_examples import Tokens
from tests.support import judged_rows, tiny, training_rows
from tests.support.training_rows import taught

KNOBS: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 16,
    "learning_rate": 1e-2,
    "num_train_epochs": 6,
    "per_device_train_batch_size": 4,
    "save_steps": 100,
}
ASKED = [f"Number {number}?" for number in range(24)]
GOOD, BAD = "Yes.", "No!"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    judged_rows.pairs(tmp_path, [(asked, GOOD, BAD) for asked in ASKED])
    labelled = [(asked, BAD if n % 2 else GOOD, n % 2 == 0) for n, asked in enumerate(ASKED)]
    judged_rows.labels(tmp_path, labelled)
    return tmp_path


def keep(kept: list[dict[str, float]]) -> Callable[[Progress], None]:
    """Return a callback that stores each step's figures."""

    def report(progress: Progress) -> None:
        kept.append(progress.figures)

    return report


@pytest.mark.parametrize(("is_good", "kind"), [(True, "good"), (False, "bad")])
def test_labels_that_are_all_equal_are_refused(tmp_path: Path, is_good: bool, kind: str):
    judged_rows.labels(tmp_path, [(asked, GOOD, is_good) for asked in ASKED])
    recipe = Recipe(objective=Kto(validation_share=0))
    with pytest.raises(ValueError, match=f"all 24 that would be learned are {kind}"):
        training_examples.select_examples(tmp_path, tiny.tokenizer(), recipe)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(Dpo(validation_share=0.3), id="dpo"),
        pytest.param(Orpo(validation_share=0.3), id="orpo"),
        pytest.param(Kto(validation_share=0.3, beta=0.5), id="kto"),
    ],
)
@pytest.mark.slow
def test_preferences_generalise_to_held_out_requests(
    model: Path, snapshot: Path, tmp_path: Path, objective: Objective
):
    kept: list[dict[str, float]] = []
    recipe = Recipe(objective=objective, **KNOBS)
    fit.fit(snapshot, model, tmp_path / "adapter", recipe, report=keep(kept))
    losses = [figures["loss"] for figures in kept if "loss" in figures]  # the rest: validating
    assert losses[-1] < 0.8 * losses[0]
    assert kept[-1]["validation_accuracy"] > 0.9
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_judgements_are_measured_after_a_training_in_threads(
    model: Path, snapshot: Path, tmp_path: Path, threads: Callable[[int], None]
):
    threads(2)
    kept: list[dict[str, float]] = []
    knobs: dict[str, Any] = {**KNOBS, "num_train_epochs": 1}
    recipe = Recipe(objective=Dpo(validation_share=0.3), **knobs)
    fit.fit(snapshot, model, tmp_path / "adapter", recipe, report=keep(kept))
    assert 0 <= kept[-1]["validation_accuracy"] <= 1


@pytest.mark.slow
def test_a_student_learns_its_teachers_answers_rather_than_the_rows(model: Path, tmp_path: Path):
    training_rows.snapshot(tmp_path, [(asked, GOOD) for asked in ASKED])
    taught_by = tmp_path / "teacher"
    fit.fit(tmp_path, model, taught_by, Recipe(**KNOBS), report=lambda _: None)
    training_rows.snapshot(tmp_path, [(asked, BAD) for asked in ASKED])
    training_rows.write(tmp_path, [(asked, (), Answer(GOOD)) for asked in ASKED], side="validation")

    def validation(objective: Objective) -> float:
        kept: list[dict[str, float]] = []
        folder = tmp_path / objective.kind
        knobs: dict[str, Any] = {**KNOBS, "num_train_epochs": 2}
        recipe = Recipe(objective=objective, **knobs)
        fit.fit(tmp_path, model, folder, recipe, report=keep(kept))
        return kept[-1]["validation_loss"]

    alone = validation(Sft())
    distilled = validation(Distillation(teacher_model_name_or_path=taught_by, teacher_share=1.0))
    assert distilled < alone


def test_a_teacher_of_another_vocabulary_is_refused(model: Path):
    other = tiny.tokenizer()
    other.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"its vocabulary of 259 tokens is not the base's of 260"):
        fit.load_teacher(model, other)


def test_earlier_answers_of_a_conversation_are_learned_on_request(model: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "Bye"},
    ]
    answer = [{"role": "assistant", "content": "Ciao"}]
    last_only = training_examples.tokenize_answer(tokenizer, asked, answer, 1.0)
    all_of_them = training_examples.tokenize_answer(
        tokenizer, asked, answer, 1.0, every_answer=True
    )
    assert all_of_them.input_ids == last_only.input_ids
    learned = [tokenizer.decode(last_only.input_ids[a:b]) for a, b in all_of_them.learned]
    assert learned == ["Yo<|im_end|>", "Ciao<|im_end|>"]
    (share,) = collate([taught(all_of_them)], BatchLayout(first_token_weight=3.0))["micro_batches"]
    assert tokenizer.decode(share["labels"]) == "Yo<|im_end|>Ciao<|im_end|>"
    assert share["weights"].tolist() == [3.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9))
def test_no_answer_is_paired_with_its_own_request_for_the_kl_estimate(
    judged: list[tuple[int, int]],
):
    examples = [
        taught(Tokens([10 + asked, 10 + asked, 20 + answer], 1, 1.0), row_id=str(number))
        for number, (asked, answer) in enumerate(judged)
    ]
    batch = collate(examples, BatchLayout(kl_pairs=True))
    strangers = [pair for share in batch["kl_pairs"] for pair in asked_and_said(share)]
    several = len({asked for asked, _ in judged}) > 1
    assert Counter(answer for _, answer in strangers) == Counter(
        20 + answer for _, answer in judged if several
    )
    kinds = {(10 + asked, 20 + answer) for asked, answer in judged}
    if several and len(kinds) == len(
        {answer for _, answer in kinds}
    ):  # an answer tells its request
        assert not {*strangers} & kinds


def test_no_pair_of_the_kl_estimate_is_longer_than_the_longest_example():
    long, short = Tokens([*range(10, 18), 30], 1, 1.0), Tokens([20, *range(31, 36)], 5, 1.0)
    examples = [taught(long, row_id="long"), taught(short, row_id="short")]
    batch = collate(examples, BatchLayout(kl_pairs=True, max_length=9))
    assert [pair for share in batch["kl_pairs"] for pair in asked_and_said(share)] == [(20, 30)]


def asked_and_said(share: Any) -> list[tuple[int, int]]:
    """Return the first token of each row's request and of its answer."""
    rows = torch.split(share["input_ids"][share["row_indices"]], share["row_sizes"][:, 0].tolist())
    return [(int(row[0]), int(row[-1])) for row in rows]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        pytest.param("dpo", r"objective dpo learns from pairs .* in preferences.parquet", id="dpo"),
        pytest.param("kto", r"objective kto learns from answers labelled good or bad", id="kto"),
    ],
)
def test_a_snapshot_without_the_objectives_rows_is_refused_with_the_rows_it_has(
    model: Path, tmp_path: Path, kind: str, message: str
):
    training_rows.snapshot(tmp_path, [("Hi", GOOD), ("Ho", GOOD)])
    recipe = Recipe.model_validate({"objective": kind, **KNOBS})
    with pytest.raises(ValueError, match=message) as refused:
        fit.fit(tmp_path, model, tmp_path / "a", recipe, report=lambda _: None)
    assert "there are 2 examples to answer (sft)" in str(refused.value)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        pytest.param(
            {"objective": "dpo", "call_margin": 2}, "call_margin would do nothing", id="idle knob"
        ),
        pytest.param(
            {"objective": "kto", "per_device_train_batch_size": 1}, "at least 2", id="batch"
        ),
        pytest.param({"objective": "ppo"}, "'ppo' found using 'kind' does not match", id="unknown"),
        pytest.param({"objective": {"kind": "dpo", "temperature": 2}}, "Extra", id="no such knob"),
    ],
)
def test_settings_without_effect_are_refused(knobs: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(knobs)


def test_an_objective_is_a_name_or_an_object():
    objectives: TypeAdapter[Objective] = TypeAdapter(Objective)
    assert objectives.validate_python("orpo") == Orpo()
    assert objectives.validate_python({"kind": "dpo", "beta": 0.5}) == Dpo(beta=0.5)


@pytest.mark.parametrize("kind", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_what_answers_are_compared_with_is_computed_without_dropout(
    model: Path, snapshot: Path, tmp_path: Path, kind: str
):
    tokenizer = AutoTokenizer.from_pretrained(model)
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "embd_pdrop": 0.5}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id}
    base = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size, **ends)).train()
    dropped: dict[bool, set[bool]] = {True: set(), False: set()}

    def note(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        dropped[torch.is_grad_enabled()].add(not torch.equal(inputs[0], output))

    base.transformer.drop.register_forward_hook(note)
    knobs = {"objective": kind, "bnb_4bit_quant_type": None, "num_train_epochs": 1}
    recipe = Recipe.model_validate(KNOBS | knobs)
    fit.fit(snapshot, (base, tokenizer), tmp_path / "a", recipe, report=lambda _: None)
    assert dropped == {True: {True}, False: {False}}
