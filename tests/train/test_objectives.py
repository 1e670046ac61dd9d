"""Each objective learns what its view of the snapshot says, by TRL's own formula."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from components import base
from components.schema import Answer, Progress
from components.train import fit, teacher
from components.train.batches import Shape, collate
from components.train.completion import CompletionTrainer
from components.train.lessons import Tokens
from components.train.objectives.settings import Distillation, Dpo, Kto, Objective, Orpo, Sft
from components.train.recipe import Recipe
from tests import tiny
from tests.train import judged, rows
from tests.train.rows import taught

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
    judged.pairs(tmp_path, [(asked, GOOD, BAD) for asked in ASKED])
    labelled = [(asked, BAD if n % 2 else GOOD, n % 2 == 0) for n, asked in enumerate(ASKED)]
    judged.labels(tmp_path, labelled)
    return tmp_path


def keep(kept: list[dict[str, float]]) -> Callable[[Progress], None]:
    """Give a listener that keeps each step's figures."""

    def report(progress: Progress) -> None:
        kept.append(progress.figures)

    return report


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(Dpo(validation_share=0.3), id="dpo"),
        pytest.param(Orpo(validation_share=0.3), id="orpo"),
        pytest.param(Kto(validation_share=0.3, beta=0.5), id="kto"),
    ],
)
def test_what_people_preferred_is_preferred_where_nobody_was_asked(
    model: Path, snapshot: Path, tmp_path: Path, objective: Objective
):
    kept: list[dict[str, float]] = []
    recipe = Recipe(objective=objective, **KNOBS)
    fit.fit(snapshot, model, tmp_path / "adapter", recipe, report=keep(kept))
    *steps, last = kept
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    assert last["validation_accuracy"] > 0.9
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_judgements_are_measured_after_a_training_in_lanes(
    model: Path, snapshot: Path, tmp_path: Path
):
    before, kept = torch.get_num_threads(), list[dict[str, float]]()
    torch.set_num_threads(2)
    try:
        knobs: dict[str, Any] = {**KNOBS, "num_train_epochs": 1}
        recipe = Recipe(objective=Dpo(validation_share=0.3), **knobs)
        fit.fit(snapshot, model, tmp_path / "adapter", recipe, report=keep(kept))
    finally:
        torch.set_num_threads(before)
    assert 0 <= kept[-1]["validation_accuracy"] <= 1


CHOSEN, REJECTED = Tokens([5, 6, 7, 8, 9], 2, 1.0), Tokens([5, 6, 7, 10, 11, 12], 3, 1.0)
OTHER, WORSE = Tokens([13, 14, 15, 16], 2, 1.0), Tokens([13, 14, 17], 1, 1.0)


@pytest.fixture
def adapted(model: Path) -> torch.nn.Module:
    """Give a model in fp32 whose adapter changes what it says."""
    from peft import LoraConfig, get_peft_model

    bare, _ = base.load(model, "fp32", for_training=False)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(bare, config).eval()


def loss_of(model: torch.nn.Module, objective: Objective, lessons: list[dict[str, Any]]) -> float:
    """Compute the loss of a batch."""
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    trainer.objective = objective
    batch = collate(lessons, Shape(strangers=objective.kind == "kto"))
    return trainer.compute_loss(model, batch).item()


def likelihood(model: torch.nn.Module, tokens: Tokens) -> torch.Tensor:
    """Compute the log-likelihood of an answer from the logits of its whole row."""
    ids = torch.tensor([tokens.input_ids])
    with torch.no_grad():
        scored = torch.log_softmax(model(input_ids=ids).logits[0].float(), -1)
    places = range(tokens.prompt_length, len(tokens.input_ids))
    return torch.stack([scored[place - 1, tokens.input_ids[place]] for place in places]).sum()


def gain(model: Any, tokens: Tokens) -> torch.Tensor:
    """Compute how much likelier an answer is than the base finds it."""
    with model.disable_adapter():
        before = likelihood(model, tokens)
    return likelihood(model, tokens) - before


def test_dpo_is_what_its_paper_says(adapted: torch.nn.Module):
    margins = [
        gain(adapted, chosen) - gain(adapted, rejected)
        for chosen, rejected in ((CHOSEN, REJECTED), (OTHER, WORSE))
    ]
    expected = -torch.nn.functional.logsigmoid(0.3 * torch.stack(margins)).mean()
    lessons = [taught(CHOSEN, REJECTED), taught(OTHER, WORSE)]
    assert abs(margins[0]) > 0.01
    assert loss_of(adapted, Dpo(beta=0.3), lessons) == pytest.approx(expected.item(), rel=1e-4)


def test_orpo_is_what_its_paper_says(adapted: torch.nn.Module):
    found: list[torch.Tensor] = []
    for chosen, rejected in ((CHOSEN, REJECTED), (OTHER, WORSE)):
        one, two = (likelihood(adapted, row) / row.answer_length for row in (chosen, rejected))
        odds = (one - torch.log(1 - one.exp())) - (two - torch.log(1 - two.exp()))
        found.append(-one - 0.3 * torch.nn.functional.logsigmoid(odds))
    lessons = [taught(CHOSEN, REJECTED), taught(OTHER, WORSE)]
    expected = torch.stack(found).mean().item()
    assert loss_of(adapted, Orpo(beta=0.3), lessons) == pytest.approx(expected, rel=1e-4)


def test_kto_is_what_its_paper_says(adapted: torch.nn.Module):
    labelled = ((CHOSEN, True), (WORSE, False), (REJECTED, False))
    asked = [row.input_ids[: row.prompt_length] for row, _ in labelled]
    said = [row.input_ids[row.prompt_length :] for row, _ in labelled]
    strangers = [Tokens(asked[(n + 1) % 3] + said[n], len(said[n]), 1.0) for n in range(3)]
    drift = torch.stack([gain(adapted, row) for row in strangers]).mean().clamp(min=0)
    values: list[torch.Tensor] = []
    for row, is_good in labelled:
        value = gain(adapted, row) - drift if is_good else drift - gain(adapted, row)
        values.append((2 if is_good else 3) * (1 - torch.sigmoid(0.3 * value)))
    objective = Kto(beta=0.3, desirable_weight=2, undesirable_weight=3)
    lessons = [taught(row, is_good=is_good) for row, is_good in labelled]
    expected = torch.stack(values).mean().item()
    assert loss_of(adapted, objective, lessons) == pytest.approx(expected, rel=1e-4)


def test_dpo_and_kto_are_trls_to_the_last_digits(adapted: torch.nn.Module, tmp_path: Path):
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    knobs: dict[str, Any] = {"beta": 0.3, "report_to": "none", "use_cpu": True, "bf16": False}
    pairs = [
        {"prompt_ids": prompt_of(good), "chosen_ids": said(good), "rejected_ids": said(bad)}
        for good, bad in ((CHOSEN, REJECTED), (OTHER, WORSE))
    ]
    theirs = trls_loss(DPOTrainer, DPOConfig(output_dir=str(tmp_path), **knobs), adapted, pairs)
    ours = loss_of(adapted, Dpo(beta=0.3), [taught(CHOSEN, REJECTED), taught(OTHER, WORSE)])
    assert ours == pytest.approx(theirs, rel=1e-4)

    labelled = ((CHOSEN, True), (WORSE, False), (REJECTED, False))
    labels = [
        {
            "prompt_ids": prompt_of(row),
            "completion_ids": said(row),
            "KL_completion_ids": said(labelled[number - 1][0]),
            "label": is_good,
        }
        for number, (row, is_good) in enumerate(labelled)
    ]
    theirs = trls_loss(KTOTrainer, KTOConfig(output_dir=str(tmp_path), **knobs), adapted, labels)
    lessons = [taught(row, is_good=is_good) for row, is_good in labelled]
    assert loss_of(adapted, Kto(beta=0.3), lessons) == pytest.approx(theirs, rel=1e-4)


def prompt_of(row: Tokens) -> list[int]:
    return row.input_ids[: row.prompt_length]


def said(row: Tokens) -> list[int]:
    return row.input_ids[row.prompt_length :]


def trls_loss(kind: Any, config: Any, model: torch.nn.Module, batch: list[dict[str, Any]]) -> float:
    """Compute the loss of a batch with a trainer of TRL's."""
    from datasets import Dataset

    answers = {"chosen": "b", "rejected": "c"} if "chosen_ids" in batch[0] else {}
    row = {"prompt": "a", **(answers or {"completion": "b", "label": True})}
    trainer = kind(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([row, row]),
        processing_class=tiny.tokenizer(),
    )
    trainer.model.delete_adapter("ref")  # a copy of a trained adapter; ours is held to the base
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model.eval(), trainer.data_collator(batch)))


def test_a_distillation_mixes_what_was_logged_with_what_the_teacher_says(
    model: Path, adapted: torch.nn.Module
):
    told, _ = base.load(model, "fp32", for_training=False)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    trainer.teacher = told
    trainer.objective = Distillation(
        teacher_model_name_or_path=model, temperature=2.0, teacher_share=0.25
    )
    found = trainer.compute_loss(adapted, collate([taught(CHOSEN), taught(OTHER)])).item()

    expected: list[torch.Tensor] = []
    for row in (CHOSEN, OTHER):
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            said, wanted = (one(input_ids=ids).logits[0].float() for one in (adapted, told))
        for place in range(row.prompt_length, len(row.input_ids)):
            teacher_says = torch.softmax(wanted[place - 1] / 2, -1)
            student_says = torch.log_softmax(said[place - 1] / 2, -1)
            divergence = (teacher_says * (teacher_says.log() - student_says)).sum() * 4
            logged = -torch.log_softmax(said[place - 1], -1)[row.input_ids[place]]
            expected.append(0.75 * logged + 0.25 * divergence)
    assert found == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_a_student_learns_from_its_teacher_what_no_row_says(model: Path, tmp_path: Path):
    rows.snapshot(tmp_path, [(asked, GOOD) for asked in ASKED])
    taught_by = tmp_path / "teacher"
    fit.fit(tmp_path, model, taught_by, Recipe(**KNOBS), report=lambda _: None)
    rows.snapshot(tmp_path, [(asked, BAD) for asked in ASKED])
    rows.write(tmp_path, [(asked, (), Answer(GOOD)) for asked in ASKED], side="validation")

    def validation(objective: Objective) -> float:
        kept: list[dict[str, float]] = []
        folder = tmp_path / objective.kind
        knobs: dict[str, Any] = {**KNOBS, "num_train_epochs": 2}
        recipe = Recipe(objective=objective, **knobs)
        fit.fit(tmp_path, model, folder, recipe, report=keep(kept))
        return kept[-1]["validation_loss"]

    alone = validation(Sft())
    told = validation(Distillation(teacher_model_name_or_path=taught_by, teacher_share=1.0))
    assert told < alone


def test_a_teacher_of_another_vocabulary_is_refused(model: Path):
    other = tiny.tokenizer()
    other.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"its vocabulary of 259 tokens is not the base's of 260"):
        teacher.load(model, other)


def test_earlier_answers_of_a_conversation_are_learned_where_that_is_wanted(
    model: Path, tmp_path: Path
):
    from transformers import AutoTokenizer

    from components.train import lessons

    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
        {"role": "user", "content": "Bye"},
    ]
    answer = [{"role": "assistant", "content": "Ciao"}]
    one = lessons.tokenize(tokenizer, asked, answer, 1.0)
    all_of_them = lessons.tokenize(tokenizer, asked, answer, 1.0, every_answer=True)
    assert all_of_them.input_ids == one.input_ids
    learned = [tokenizer.decode(one.input_ids[a:b]) for a, b in all_of_them.learned]
    assert learned == ["Yo<|im_end|>", "Ciao<|im_end|>"]
    (share,) = collate([taught(all_of_them)], Shape(first_token_weight=3.0))["shares"]
    assert tokenizer.decode(share["labels"]) == "Yo<|im_end|>Ciao<|im_end|>"
    assert share["weights"].tolist() == [3.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        pytest.param("dpo", r"objective dpo learns from pairs .* in preferences.parquet", id="dpo"),
        pytest.param("kto", r"objective kto learns from answers labelled good or bad", id="kto"),
    ],
)
def test_a_snapshot_without_the_objectives_rows_is_refused_with_what_it_has(
    model: Path, tmp_path: Path, kind: str, told: str
):
    rows.snapshot(tmp_path, [("Hi", GOOD), ("Ho", GOOD)])
    recipe = Recipe.model_validate({"objective": kind, **KNOBS})
    with pytest.raises(ValueError, match=told) as refused:
        fit.fit(tmp_path, model, tmp_path / "a", recipe, report=lambda _: None)
    assert "there are 2 examples to answer (sft)" in str(refused.value)


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        pytest.param(
            {"objective": "dpo", "call_margin": 2}, "call_margin would do nothing", id="idle knob"
        ),
        pytest.param(
            {"objective": "kto", "per_device_train_batch_size": 1}, "wants at least 2", id="batch"
        ),
        pytest.param({"objective": "ppo"}, "'ppo' found using 'kind' does not match", id="unknown"),
        pytest.param({"objective": {"kind": "dpo", "temperature": 2}}, "Extra", id="no such knob"),
    ],
)
def test_knobs_that_would_do_nothing_are_refused(knobs: dict[str, Any], told: str):
    with pytest.raises(ValidationError, match=told):
        Recipe.model_validate(knobs)


def test_an_objective_is_named_or_written_out():
    objectives: TypeAdapter[Objective] = TypeAdapter(Objective)
    assert objectives.validate_python("orpo") == Orpo()
    assert objectives.validate_python({"kind": "dpo", "beta": 0.5}) == Dpo(beta=0.5)
