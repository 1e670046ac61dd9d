"""Asking a second time: each request once, in other company, with its own answer."""

from collections.abc import Sequence

from lm_eval.api.instance import Instance

from components.evaluate.engines.lm_wrappers import OtherBatches
from tests.support.oracle import Oracle


def ignore(done: int, total: int) -> None:
    """Report nothing."""


class Noisy(Oracle):
    """Answers by what else is in the batch, as rounding in 16 bits may."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        self.batches.append([request.args[0] for request in requests])
        return [f"{request.args[0]} of {len(requests)}" for request in requests]


def instances(prompts: Sequence[str]) -> list[Instance]:
    return [
        Instance("generate_until", {}, (prompt, {"until": []}), index)
        for index, prompt in enumerate(prompts)
    ]


def test_each_request_is_asked_once_with_others_and_gets_its_own_answer():
    prompts = [f"{number:02}" for number in range(40)]
    lm = Noisy()
    reports: list[tuple[int, int]] = []
    answers = OtherBatches(
        lm, 16, lambda done, total: reports.append((done, total))
    ).generate_until(instances(prompts))
    assert [answer[:2] for answer in answers] == prompts
    assert sorted(prompt for batch in lm.batches for prompt in batch) == prompts
    assert [len(batch) for batch in lm.batches] == [9, 9, 9, 9, 4]
    assert all(batch != sorted(batch) for batch in lm.batches), "in another order"
    assert reports == [(0, 40), (9, 40), (18, 40), (27, 40), (36, 40), (40, 40)]


def test_other_batches_are_the_same_every_time():
    prompts = [f"{number:02}" for number in range(40)]
    first, second = Noisy(), Noisy()
    OtherBatches(first, 4, ignore).generate_until(instances(prompts))
    OtherBatches(second, 4, ignore).generate_until(instances(prompts[::-1]))
    assert first.batches == second.batches


def test_a_batch_of_one_stays_one():
    lm = Noisy()
    OtherBatches(lm, 1, ignore).generate_until(instances(["a", "b"]))
    assert [len(batch) for batch in lm.batches] == [1, 1]


def test_continuations_are_scored_in_other_batches_too():
    lm = Oracle(likely=lambda prompt, answer: float(len(prompt + answer)))
    asked = [Instance("loglikelihood", {}, ("a" * n, "b"), n) for n in range(20)]
    scores = OtherBatches(lm, 8, ignore).loglikelihood(asked)
    assert scores == [(n + 1.0, False) for n in range(20)]
