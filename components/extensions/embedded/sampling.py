"""Choose the next token of a row of logits, and report log-probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253 - the engine is a process of its own

GREEDY_BELOW = 1e-5  # vLLM's; divided by a lower temperature, logits may overflow
NUCLEUS = 512  # tokens that are sorted first for ``top_p``; all are if they don't suffice


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are chosen: the most probable one if ``temperature`` is 0, otherwise at random."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    repetition_penalty: float = 1.0

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token's log-probability (nats) and rank from 1; ``top`` are the most probable tokens."""

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


class Sampler:
    """The random numbers of one request: the same seed chooses alike beside any other requests."""

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        self._random = np.random.Generator(np.random.PCG64(settings.seed))

    def choose(self, logits: torch.Tensor) -> int:
        """Choose a token of ``[vocabulary]``."""
        if self.settings.is_greedy:
            return int(logits.argmax())
        draw = self._random.random()
        chances = (logits.double() / self.settings.temperature).softmax(-1)
        if self.settings.top_p >= 1:
            return _at(chances.cumsum(-1), draw)
        likeliest, tokens = _nucleus(chances, self.settings.top_p)
        return int(tokens[_at(likeliest.cumsum(-1), draw * float(likeliest.sum()))])


def penalize(logits: torch.Tensor, tokens: Sequence[int], penalty: float) -> torch.Tensor:
    """Lower the logits of tokens that occurred (arXiv:1909.05858)."""
    if penalty == 1:
        return logits
    seen = torch.tensor(sorted(set(tokens)), device=logits.device)
    at = logits[seen]
    return logits.index_copy(0, seen, torch.where(at > 0, at / penalty, at * penalty))


def score(logits: torch.Tensor, tokens: Sequence[int], top: int) -> list[ScoredToken]:
    """Score tokens by rows of logits ``[tokens, vocabulary]``, with each row's ``top`` tokens."""
    logs = logits.log_softmax(-1)
    at = logs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])
    ranks = (logs > at).sum(-1) + 1
    best = logs.topk(top) if top else None
    return [
        ScoredToken(
            token,
            float(at[row]),
            int(ranks[row]),
            ()
            if best is None
            else tuple(zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)),
        )
        for row, token in enumerate(tokens)
    ]


def _nucleus(chances: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    # the fewest tokens whose chances add up to ``top_p``, the likeliest first
    best = chances.topk(min(NUCLEUS, len(chances)))
    if float(best.values.sum()) < top_p:
        best = chances.sort(descending=True, stable=True)
    before = best.values.cumsum(-1) - best.values
    count = max(1, int((before < top_p).sum()))
    return best.values[:count], best.indices[:count]


def _at(sums: torch.Tensor, draw: float) -> int:
    return min(int(torch.searchsorted(sums, draw, right=True)), len(sums) - 1)
