"""Each objective's loss is its paper's, and TRL's if TRL has it."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.models import base
from components.train import objective_losses
from components.train.micro_batches import BatchLayout, collate
from components.train.recipe import Distillation, Dpo, Kto, Objective, Orpo
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from tests.support import tiny
from tests.support.training_rows import taught

CHOSEN, REJECTED = Tokens([5, 6, 7, 8, 9], 2, 1.0), Tokens([5, 6, 7, 10, 11, 12], 3, 1.0)
OTHER, WORSE = Tokens([13, 14, 15, 16], 2, 1.0), Tokens([13, 14, 17], 1, 1.0)
THIRD = Tokens([18, 19, 20, 21], 2, 1.0)


@pytest.fixture
def adapted(model: Path) -> torch.nn.Module:
    """Return a model in fp32 with an adapter that changes its answers."""
    from peft import LoraConfig, get_peft_model

    bare, _ = base.load(model, "fp32", for_training=False)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(bare, config).eval()


def loss_of(model: torch.nn.Module, objective: Objective, examples: list[dict[str, Any]]) -> float:
    """Compute the loss of a batch."""
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    trainer.objective = objective
    batch = collate(examples, BatchLayout(kl_pairs=objective.kind == "kto"))
    return trainer.batch_loss(model, batch).item()


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


def test_dpo_is_its_papers_equation(adapted: torch.nn.Module):
    margins = [
        gain(adapted, chosen) - gain(adapted, rejected)
        for chosen, rejected in ((CHOSEN, REJECTED), (OTHER, WORSE))
    ]
    expected = -torch.nn.functional.logsigmoid(0.3 * torch.stack(margins)).mean()
    examples = [taught(CHOSEN, REJECTED), taught(OTHER, WORSE)]
    assert abs(margins[0]) > 0.01
    assert loss_of(adapted, Dpo(beta=0.3), examples) == pytest.approx(expected.item(), rel=1e-4)


def test_orpo_is_its_papers_equation(adapted: torch.nn.Module):
    losses: list[torch.Tensor] = []
    for chosen, rejected in ((CHOSEN, REJECTED), (OTHER, WORSE)):
        won, lost = (likelihood(adapted, row) / row.answer_length for row in (chosen, rejected))
        odds = (won - torch.log(1 - won.exp())) - (lost - torch.log(1 - lost.exp()))
        losses.append(-won - 0.3 * torch.nn.functional.logsigmoid(odds))
    examples = [taught(CHOSEN, REJECTED), taught(OTHER, WORSE)]
    expected = torch.stack(losses).mean().item()
    assert loss_of(adapted, Orpo(beta=0.3), examples) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        pytest.param(0.0, 0.0, id="both-are-certain"),
        pytest.param(-1e-9, -1.0, id="the-chosen-one-is"),
        pytest.param(-1.0, -1e-9, id="the-rejected-one-is"),
    ],
)
def test_orpo_is_finite_for_answers_that_the_model_is_certain_of(chosen: float, rejected: float):
    means = torch.tensor([chosen, rejected], requires_grad=True)
    loss = objective_losses.orpo_loss(means[:1], means[1:], 0.3).sum()
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    assert means.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(means.grad).all()


def test_kto_is_its_papers_equation(adapted: torch.nn.Module):
    labelled = ((CHOSEN, True), (WORSE, False), (REJECTED, False))
    asked = [row.input_ids[: row.prompt_length] for row, _ in labelled]
    answers = [row.input_ids[row.prompt_length :] for row, _ in labelled]
    others = (1, 2, 1)  # the next one that asks something else
    mismatched = [Tokens(asked[others[n]] + answers[n], len(answers[n]), 1.0) for n in range(3)]
    drift = torch.stack([gain(adapted, row) for row in mismatched]).mean().clamp(min=0)
    values: list[torch.Tensor] = []
    for row, is_good in labelled:
        value = gain(adapted, row) - drift if is_good else drift - gain(adapted, row)
        values.append((2 if is_good else 3) * (1 - torch.sigmoid(0.3 * value)))
    objective = Kto(beta=0.3, desirable_weight=2, undesirable_weight=3)
    examples = [taught(row, is_good=is_good) for row, is_good in labelled]
    expected = torch.stack(values).mean().item()
    assert loss_of(adapted, objective, examples) == pytest.approx(expected, rel=1e-4)


def test_dpo_and_kto_equal_trls_up_to_rounding(adapted: torch.nn.Module, tmp_path: Path):
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    knobs: dict[str, Any] = {"beta": 0.3, "report_to": "none", "use_cpu": True, "bf16": False}
    pairs = [
        {
            "prompt_ids": prompt_of(good),
            "chosen_ids": answer_ids(good),
            "rejected_ids": answer_ids(bad),
        }
        for good, bad in ((CHOSEN, REJECTED), (OTHER, WORSE))
    ]
    theirs = trls_loss(DPOTrainer, DPOConfig(output_dir=str(tmp_path), **knobs), adapted, pairs)
    ours = loss_of(adapted, Dpo(beta=0.3), [taught(CHOSEN, REJECTED), taught(OTHER, WORSE)])
    assert ours == pytest.approx(theirs, rel=1e-4)

    labelled = ((CHOSEN, True), (WORSE, False), (THIRD, False))  # no two answer one request
    labels = [
        {
            "prompt_ids": prompt_of(row),
            "completion_ids": answer_ids(row),
            "KL_completion_ids": answer_ids(labelled[number - 1][0]),
            "label": is_good,
        }
        for number, (row, is_good) in enumerate(labelled)
    ]
    theirs = trls_loss(KTOTrainer, KTOConfig(output_dir=str(tmp_path), **knobs), adapted, labels)
    examples = [taught(row, is_good=is_good) for row, is_good in labelled]
    assert loss_of(adapted, Kto(beta=0.3), examples) == pytest.approx(theirs, rel=1e-4)


def prompt_of(row: Tokens) -> list[int]:
    return row.input_ids[: row.prompt_length]


def answer_ids(row: Tokens) -> list[int]:
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


@pytest.mark.parametrize("padded", [0, -3, 5])
def test_a_distillation_mixes_the_logged_answer_with_the_teachers_probabilities(
    model: Path, adapted: torch.nn.Module, padded: int
):
    teacher, tokenizer = base.load(model, "fp32", for_training=False)
    teacher.resize_token_embeddings(len(tokenizer) + padded)
    width = len(tokenizer) + min(padded, 0)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    trainer.teacher = teacher
    trainer.objective = Distillation(
        teacher_model_name_or_path=model, temperature=2.0, teacher_share=0.25
    )
    loss = trainer.batch_loss(adapted, collate([taught(CHOSEN), taught(OTHER)])).item()

    expected: list[torch.Tensor] = []
    for row in (CHOSEN, OTHER):
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            student, target = (
                model(input_ids=ids).logits[0].float() for model in (adapted, teacher)
            )
            target = target[:, :width]
        for place in range(row.prompt_length, len(row.input_ids)):
            teacher_says = torch.softmax(target[place - 1] / 2, -1)
            student_says = torch.log_softmax(student[place - 1, :width] / 2, -1)
            divergence = (teacher_says * (teacher_says.log() - student_says)).sum() * 4
            logged = -torch.log_softmax(student[place - 1], -1)[row.input_ids[place]]
            expected.append(0.75 * logged + 0.25 * divergence)
    assert loss == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


@given(st.lists(st.integers(-3, 3), max_size=9), st.lists(st.integers(-3, 3), max_size=9))
def test_the_accuracy_of_labels_counts_all_combinations(good: list[int], bad: list[int]):
    metrics = objective_losses.ValidationMetrics(Kto())
    metrics.good, metrics.bad, metrics.count = [*map(float, good)], [*map(float, bad)], 1.0
    right = [better > worse for better in good for worse in bad]
    expected = sum(right) / len(right) if right else None
    assert metrics.figures().get("validation_accuracy") == expected


def test_the_accuracy_of_many_labels_takes_no_memory_for_each_combination():
    metrics = objective_losses.ValidationMetrics(Kto())
    metrics.good, metrics.bad, metrics.count = [1.0] * 3_000, [0.0] * 3_000, 1.0
    tracemalloc.start()
    assert metrics.figures()["validation_accuracy"] == 1
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10**6
