"""Tokens are drawn as often as their probabilities and settings say."""

import math
from collections import Counter

import pytest
import torch

from components.extensions.embedded.sampling import Sampler, SamplingSettings, penalize, score

PROBABILITIES = [0.5, 0.3, 0.15, 0.05]
LOGITS = torch.tensor(PROBABILITIES).log()


def draw(
    settings: SamplingSettings, logits: torch.Tensor = LOGITS, count: int = 4000
) -> Counter[int]:
    sampler = Sampler(settings)
    return Counter(sampler.choose(logits) for _ in range(count))


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        pytest.param(1.0, 1.0, PROBABILITIES, id="as-they-are"),
        pytest.param(1.0, 0.9, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], id="nucleus"),
        pytest.param(1.0, 0.5, [1, 0, 0, 0], id="nucleus-of-one"),
        pytest.param(2.0, 1.0, None, id="hot"),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(
    temperature: float, top_p: float, expected: list[float] | None
) -> None:
    if expected is None:
        roots = [math.sqrt(p) for p in PROBABILITIES]
        expected = [root / sum(roots) for root in roots]
    counts = draw(SamplingSettings(temperature, top_p, seed=3))
    for token, chance in enumerate(expected):
        spread = 4 * math.sqrt(chance * (1 - chance) / 4000)
        assert abs(counts[token] / 4000 - chance) <= spread + 1e-9


def test_the_same_seed_draws_the_same_tokens_and_no_seed_others() -> None:
    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingSettings(seed=seed))
        return [sampler.choose(torch.zeros(1000)) for _ in range(20)]

    assert tokens(5) == tokens(5)
    assert len({tuple(tokens(seed)) for seed in (5, 6, None, None)}) == 4


def test_a_nucleus_wider_than_what_is_sorted_first_is_whole() -> None:
    counts = draw(SamplingSettings(top_p=0.9, seed=0), torch.zeros(2000), 3000)
    assert 1200 < len(counts) <= 1800


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = LOGITS.clone()
    logits[0] = -torch.inf
    assert set(draw(SamplingSettings(temperature=5.0, seed=1), logits)) == {1, 2, 3}


@pytest.mark.parametrize("temperature", [0, 1e-320, 1e-6])
def test_temperatures_near_zero_take_the_likeliest(temperature: float) -> None:
    assert set(draw(SamplingSettings(temperature, seed=1), count=5)) == {0}


def test_scores_are_log_probabilities_with_ranks_and_the_most_probable_tokens() -> None:
    [scored] = score(LOGITS[None], [2], 2)
    assert scored.rank == 3
    assert scored.logprob == pytest.approx(math.log(0.15), abs=1e-6)
    assert [token for token, _ in scored.top] == [0, 1]


def test_a_repetition_penalty_lowers_what_occurred_as_transformers_does() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.tensor([2.0, -1.0, 0.5, 3.0])
    processor = RepetitionPenaltyLogitsProcessor(1.3)
    expected = processor(torch.tensor([[0, 1, 1]]), logits[None].clone())[0]  # pyright: ignore[reportArgumentType]
    assert torch.allclose(penalize(logits, [0, 1, 1], 1.3), expected)
