"""Completions as vLLM writes them: whole and in chunks."""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from components.extensions.embedded.continuous_batch import GeneratedPart
from components.extensions.embedded.sampling import ScoredToken
from components.schema import Json

Written = Callable[[int], str]

LOWEST = -9999.0  # vLLM's log-probability of what can't come: JSON has no infinity


@dataclass(slots=True)
class CompletionWriter:
    """The JSON of one answer; ``written`` returns a token's text."""

    model: str
    prompt: Sequence[int]
    written: Written
    has_logprobs: bool
    echo: str | None = None
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    offset: int = 0
    completion_tokens: int = 0

    def chunk(self, part: GeneratedPart) -> dict[str, Json]:
        """Write a part of a stream."""
        return self._body([self._choice([part])])

    def whole(self, parts: Sequence[GeneratedPart], *, scores_prompt: bool) -> dict[str, Json]:
        """Write a whole answer."""
        choice = self._choice(parts)
        if scores_prompt:
            scores = [score for part in parts for score in part.prompt]
            choice["prompt_logprobs"] = [None, *map(self._prompt_logprob, scores)]
        return {**self._body([choice]), "usage": self.usage()}

    def last_chunk(self) -> dict[str, Json]:
        """Write the chunk with the counts only."""
        return {**self._body([]), "usage": self.usage()}

    def usage(self) -> dict[str, Json]:
        """Count the tokens so far."""
        prompt, completion = len(self.prompt), self.completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _body(self, choices: list[Json]) -> dict[str, Json]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _choice(self, parts: Sequence[GeneratedPart]) -> dict[str, Json]:
        text = "".join(part.text for part in parts)
        logprobs = self._logprobs(parts) if self.has_logprobs else None
        if self.echo is not None:  # once, in the first chunk
            text, self.echo = self.echo + text, None
        self.completion_tokens += sum(len(part.tokens) for part in parts)
        return {
            "index": 0,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": parts[-1].finish,
            "stop_reason": None,
        }

    def _logprobs(self, parts: Sequence[GeneratedPart]) -> dict[str, Json]:
        tokens: list[Json] = []
        logs: list[Json] = []
        tops: list[Json] = []
        offsets: list[Json] = []

        def add(token: int, score: ScoredToken | None) -> None:
            text = self.written(token)
            tokens.append(text)
            logs.append(None if score is None else finite(score.logprob))
            tops.append(None if score is None else self._top(score))
            offsets.append(self.offset)
            self.offset += len(text)

        if self.echo is not None:
            scores = [score for part in parts for score in part.prompt]
            for token, score in zip(self.prompt, [None, *scores], strict=False):
                add(token, score)
        for part in parts:
            for score in part.scores:
                add(score.token, score)
        return {
            "tokens": tokens,
            "token_logprobs": logs,
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _top(self, score: ScoredToken) -> dict[str, Json]:
        pairs: Iterable[tuple[int, float]] = (*score.top, (score.token, score.logprob))
        return {self.written(token): finite(logprob) for token, logprob in pairs}

    def _prompt_logprob(self, score: ScoredToken) -> Json:
        ranked = [(token, log, rank) for rank, (token, log) in enumerate(score.top, 1)]
        entries = [*ranked, (score.token, score.logprob, score.rank)]
        return {
            str(token): {
                "logprob": finite(logprob),
                "rank": rank,
                "decoded_token": self.written(token),
            }
            for token, logprob, rank in entries
        }


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can hold."""
    return max(logprob, LOWEST)
