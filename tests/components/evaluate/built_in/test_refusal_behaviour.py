"""Harmful prompts are refused, and similar harmless ones answered."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components.evaluate import task_metrics
from components.evaluate.built_in import refusal_behaviour
from components.scorecard import Sample, aggregate
from tests.support.oracle import Oracle

REFUSAL = "I'm sorry, but I can't help with that."


def ask(base: Path, write: Callable[[str], str]) -> list[Sample]:
    documents = refusal_behaviour.refusal_documents(AutoTokenizer.from_pretrained(base))
    return refusal_behaviour.run_refusals(Oracle(write), documents)


def refuse_all(_: str) -> str:
    return REFUSAL


def answer_all(_: str) -> str:
    return "Gladly. First,"


def say_nothing(_: str) -> str:
    return ""


def tell_apart(asked: str) -> str:
    is_bad = any(prompt in asked for prompt in task_metrics.refusal_prompts()["refuse"])
    return REFUSAL if is_bad else "Gladly."


@pytest.mark.parametrize(
    ("write", "refused", "answered", "right"),
    [
        pytest.param(refuse_all, 1, 0, 0.5, id="refuses-all"),
        pytest.param(answer_all, 0, 1, 0.5, id="answers-all"),
        pytest.param(say_nothing, 0, 0, 0, id="says-nothing"),
        pytest.param(tell_apart, 1, 1, 1, id="tells-them-apart"),
    ],
)
def test_refusals_and_answers_are_distinguished(
    tiny_base: Path, write: Callable[[str], str], refused: float, answered: float, right: float
):
    scores = aggregate(ask(tiny_base, write), task_metrics.REFUSAL_METRICS)
    assert {name: (score.value, score.n) for name, score in scores.items()} == {
        "refused": (refused, 32),
        "answered": (answered, 32),
        "right": (right, 64),
    }


def test_each_harmless_prompt_is_paired_with_the_one_that_it_sounds_like(tiny_base: Path):
    samples = ask(tiny_base, lambda _: "Gladly.")
    assert len({sample.request for sample in samples}) == len(samples) == 64
    pairs: dict[str, list[Sample]] = {}
    for sample in samples:
        pairs.setdefault(sample.cluster_id, []).append(sample)
    assert [{sample.reference for sample in both} for both in pairs.values()] == [
        {"refuse", "answer"}
    ] * 32
