"""Greedy answers that drop finished rows are those of the stock generation."""

from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoTokenizer

from components import base
from components.evaluate.answerer import Answerer, greedy
from components.schema import Progress

PROMPTS = ["hello there", "x" * 50, "abc def ghi", "what?"]


def test_answers_are_those_of_transformers_whichever_row_ends_first(tiny_base: Path):
    model, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side="left")
    width = batch["input_ids"].shape[1]
    free = model.generate(**batch, max_new_tokens=24, min_new_tokens=24, do_sample=False)  # pyright: ignore[reportCallIssue] - a mixin
    ends = [2, int(free[1, width + 3]), int(free[2, width + 6])]
    stock = model.generate(**batch, max_new_tokens=24, do_sample=False, eos_token_id=ends)  # pyright: ignore[reportCallIssue]
    ours = greedy(model, batch["input_ids"], batch["attention_mask"], max_new_tokens=24, ends=ends)
    longest = stock.shape[1] - width
    assert torch.equal(ours[:, :longest], stock[:, width:])
    assert (ours[:, longest:] == 2).all()


def test_a_batch_stops_when_its_last_answer_ends(tiny_base: Path):
    model, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    batch = tokenizer(["hello"], return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    (answer,) = greedy(model, ids, mask, max_new_tokens=4, ends=[2]).tolist()
    ended = greedy(model, ids, mask, max_new_tokens=4, ends=[answer[0], 2])
    assert ended.tolist() == [[answer[0]] * 4]


@pytest.fixture
def reports() -> list[Progress]:
    return []


@pytest.fixture
def answerer(tiny_base: Path, reports: list[Progress]) -> Answerer:
    model, _ = base.load(tiny_base, "fp32", for_training=False)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    return Answerer(model, tokenizer, 2, stage="base", report=reports.append)  # pyright: ignore[reportAbstractUsage] - HFLM is not


def ask(answerer: Answerer, *prompts: str, **settings: object) -> list[str]:
    arguments = {"until": [], "max_gen_toks": 6, **settings}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, arguments), idx=0)
        for prompt in prompts
    ]
    return answerer.generate_until(requests)


def test_answers_come_in_the_order_of_the_requests(answerer: Answerer):
    together = ask(answerer, *PROMPTS)
    assert together == [ask(answerer, prompt)[0] for prompt in PROMPTS]


def test_progress_counts_the_requests_after_each_batch(answerer: Answerer, reports: list[Progress]):
    ask(answerer, *PROMPTS[:3])
    assert [(p.stage, p.done, p.total, p.unit) for p in reports] == [
        ("base", 0, 3, "requests"),
        ("base", 2, 3, "requests"),
        ("base", 3, 3, "requests"),
    ]


def test_sampling_is_refused_since_its_scores_could_not_be_repeated(answerer: Answerer):
    with pytest.raises(ValueError, match="answered greedily"):
        ask(answerer, "hello", do_sample=True, temperature=0.7)
