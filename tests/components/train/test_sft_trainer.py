"""The loss covers the answers alone, weighted by example."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.train.micro_batches import BatchLayout, collate, count_tokens
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from tests.support import tiny
from tests.support.training_rows import taught

LONG, SHORT = Tokens([5, 6, 7, 8, 9], 2, 1.0), Tokens([10, 11, 12], 1, 3.0)


def test_a_batch_is_one_sequence_whose_answers_are_learned():
    (share,) = collate([taught(LONG), taught(SHORT)])["micro_batches"]
    assert share["input_ids"].tolist() == [*LONG.input_ids, *SHORT.input_ids]
    assert share["position_ids"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert share["predicting"].tolist() == [2, 3, 6]
    assert share["labels"].tolist() == [8, 9, 12]


def test_the_first_token_of_an_answer_has_its_weight():
    (share,) = collate([taught(LONG), taught(SHORT)], BatchLayout(first_token_weight=8.0))[
        "micro_batches"
    ]
    assert share["weights"].tolist() == [8.0, 1.0, 24.0]


def test_each_thread_gets_a_micro_batch_if_there_are_enough_rows():
    rows = [taught(LONG), taught(SHORT)]
    assert (
        len(collate(rows, BatchLayout(threads=2))["micro_batches"])
        == len(collate(rows, BatchLayout(threads=3))["micro_batches"])
        == 2
    )


def test_a_step_of_several_batches_has_one_sequence_per_batch_and_thread():
    rows = [taught(Tokens([number, 9, 9], 1, 1.0)) for number in range(8)]
    shares = collate(rows, BatchLayout(threads=2, min_sequences=2))["micro_batches"]
    assert [len(share["input_ids"]) for share in shares] == [6, 6, 6, 6]


def test_a_batch_above_the_longest_sequence_is_split():
    rows = [Tokens([number, *range(1000)], 5, 1.0) for number in range(5)]
    shares = collate([taught(row) for row in rows])["micro_batches"]
    assert sorted(len(share["input_ids"]) for share in shares) == [1001, 2002, 2002]


def test_the_loss_is_the_weighted_mean_over_the_answers_tokens(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path), dtype=torch.float32)
    expected = _losses(model, LONG) + [3 * loss for loss in _losses(model, SHORT)]
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    loss = trainer.batch_loss(model, collate([taught(LONG), taught(SHORT)]))
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_shared_prefixes_count_in_every_row():
    alike = [taught(Tokens([5, 6, 7, last], 1, 1.0)) for last in (8, 9)]
    assert count_tokens(alike) == 8 > len(collate(alike)["micro_batches"][0]["input_ids"])


@pytest.mark.parametrize("company", [pytest.param([], id="alone"), pytest.param([LONG], id="two")])
def test_an_example_of_half_the_weight_has_half_the_loss_in_any_batch(
    tmp_path: Path, company: list[Tokens]
):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path), dtype=torch.float32)
    trainer = CompletionTrainer.__new__(CompletionTrainer)

    def loss(weight: float) -> float:
        rows = [*company, replace(SHORT, weight=weight)]
        return trainer.batch_loss(model, collate([taught(row) for row in rows])).item()

    tokens = SHORT.answer_length + sum(row.answer_length for row in company)
    whole = sum(_losses(model, SHORT)) / tokens
    assert loss(1.0) - loss(0.0) == pytest.approx(whole, rel=1e-4)
    assert loss(0.5) - loss(0.0) == pytest.approx(whole / 2, rel=1e-4)


def test_with_row_weights_of_one_the_loss_is_exactly_the_weighted_mean(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path), dtype=torch.float32)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    rows = [taught(LONG), taught(replace(SHORT, weight=1.0))]
    batch = collate(rows, BatchLayout(first_token_weight=12.0))
    (share,) = batch["micro_batches"]
    same = {**share, "token_weights": share["weights"]}
    assert torch.equal(
        trainer.batch_loss(model, batch), trainer.batch_loss(model, {"micro_batches": [same]})
    )


def test_rows_with_a_common_prefix_have_the_loss_of_separate_rows(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path), dtype=torch.float32)
    rows = [Tokens([5, 6, 7, *rest], 2, 1.0) for rest in ([8, 9, 10], [8, 11], [12, 13, 14, 15])]
    batch = collate([taught(row) for row in rows])
    assert len(batch["micro_batches"][0]["input_ids"]) == 3 + 3 + 1 + 4
    loss = CompletionTrainer.__new__(CompletionTrainer).batch_loss(model, batch)
    expected = [loss for row in rows for loss in _losses(model, row)]
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_call_margin_is_added_to_the_call_tokens_logit(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path), dtype=torch.float32)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    trainer.call_token = 12

    def loss(may_call: bool, answer: int, margin: float) -> float:
        row = taught(Tokens([10, 11, answer], 1, 1.0, may_call))
        return trainer.batch_loss(model, collate([row], BatchLayout(call_margin=margin))).item()

    logits = model(input_ids=torch.tensor([[10, 11]])).logits[0, -1]
    logits[12] += 2
    for answer in (12, 13):
        expected = -torch.log_softmax(logits, -1)[answer].item()
        assert loss(True, answer, margin=2) == pytest.approx(expected, rel=1e-5)
        assert loss(False, answer, margin=2) == loss(True, answer, margin=0)
    assert loss(True, 12, margin=2) < loss(True, 12, margin=0), "a call has less to learn"
    assert loss(True, 13, margin=2) > loss(True, 13, margin=0), "the other answer more"


def _losses(model: torch.nn.Module, tokens: Tokens) -> list[float]:
    """Compute each answer token's loss from the logits of the whole row, unpadded."""
    ids = torch.tensor([tokens.input_ids])
    likelihoods = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    first = len(tokens.input_ids) - tokens.answer_length
    return [
        -likelihoods[place - 1, tokens.input_ids[place]].item()
        for place in range(first, len(tokens.input_ids))
    ]
