"""Masks on logits that keep answers within a grammar of ``chat.answer_grammar``.

Imported late, since it loads torch.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from components.schema import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = frozenset(["<tool_call>", "</tool_call>", "<|python_tag|>", "<think>", "</think>"])
"""Tokens that are text for a grammar, though a tokenizer may hold them for special ones."""

GRAMMARS = 64  # compiled ones that are kept; requests of an application offer the same tools

LIMITS = LLParserLimits(verbose_errors=False)  # errors of the others may quote what users wrote


class ConstraintError(ValueError):
    """Raised when a grammar does not compile with a base's tokens."""


class Vocabulary:
    """A tokenizer's tokens as bytes. Takes about a second, so make it once for a base."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", n_vocab: int, ends: Sequence[int] = ()
    ) -> None:
        """Read a fast tokenizer.

        Args:
            tokenizer: The base's.
            n_vocab: The width of the logits, which may exceed the tokenizer's tokens.
            ends: The tokens that end an answer, besides the tokenizer's own.

        Raises:
            ValueError: The tokenizer is not a fast one, or has no end token.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        own = cast("int | None", tokenizer.eos_token_id)
        stops: list[int] = sorted({*ends} if own is None else {*ends, own})
        if backend is None or not stops:
            raise ValueError(
                f"constraining answers of {type(tokenizer).__name__}: expected a fast tokenizer "
                "with an end token"
            )
        self.n_vocab = n_vocab
        self._tokens = LLTokenizer(_plain_marks(backend.to_str()), n_vocab=n_vocab, eos_token=stops)
        self._compiled = lru_cache(GRAMMARS)(self._compile)

    def start(self, grammar: str) -> "Matcher":
        """Begin an answer.

        Raises:
            ConstraintError: The grammar does not compile.
        """
        return Matcher(self._compiled(grammar).deep_copy(), self.n_vocab)

    def _compile(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(
            self._tokens,
            LLMatcher.grammar_from_lark(grammar),
            log_level=0,
            limits=LIMITS,
        )
        if matcher.is_error():
            raise ConstraintError(_problem(matcher, "compiling a grammar"))
        return matcher


class Matcher:
    """The state of one answer.

    ``problem`` is why its grammar can't be followed any more, such as a step that takes too long;
    from then on it allows every token.
    """

    def __init__(self, matcher: LLMatcher, n_vocab: int) -> None:
        self._matcher, self._n_vocab = matcher, n_vocab
        self.problem: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the answer has ended, by an end token."""
        return self.problem is None and self._matcher.is_stopped()

    @property
    def may_end(self) -> bool:
        """Whether the answer could end here."""
        return self.problem is not None or self._matcher.is_accepting()

    def allows(self, token: int) -> bool:
        """Return whether a token may come next; takes far less time than a mask."""
        if self.problem is None and self._matcher.validate_tokens([token]) == 1:
            return True
        self._note("constraining a token")
        return self.problem is not None

    def mask(self, row: np.ndarray) -> None:
        """Write the tokens that may come next, a bit each, into ``int32[(n_vocab + 31) // 32]``."""
        if self.problem is None:
            self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
            self._note("constraining a token")
        if self.problem is not None:
            row[:] = -1

    def consume(self, token: int) -> None:
        """Add a token to the answer."""
        if self.problem is None and not self._matcher.consume_token(token):
            self._note(f"adding token {token} to a constrained answer")

    def _note(self, action: str) -> None:
        if self._matcher.is_error():
            self.problem = _problem(self._matcher, action)


def new_rows(count: int, n_vocab: int) -> np.ndarray:
    """Return bit masks that allow every token, ``int32[count, (n_vocab + 31) // 32]``."""
    return np.full((count, (n_vocab + 31) // 32), -1, np.int32)


def apply(logits: torch.Tensor, matchers: Sequence[Matcher | None]) -> None:
    """Set the logits of tokens that may not come next to minus infinity.

    Args:
        logits: ``[rows, n_vocab]``, changed in place.
        matchers: One per row; rows without one stay as they are.
    """
    rows = [row for row, matcher in enumerate(matchers) if matcher is not None]
    if not rows:
        return
    width = logits.shape[-1]
    masks = new_rows(len(rows), width)
    for mask, row in zip(masks, rows, strict=True):
        cast("Matcher", matchers[row]).mask(mask)
    words = torch.from_numpy(masks).to(logits.device)
    bits = (words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=logits.device)) & 1
    where = torch.tensor(rows, device=logits.device)
    logits[where] = logits[where].masked_fill(bits.flatten(1)[:, :width] == 0, -torch.inf)


def greedy(logits: torch.Tensor, matchers: Sequence[Matcher | None]) -> list[int]:
    """Return the likeliest tokens that may come next, ``[rows]``, and add them to the answers.

    A mask is made only where the likeliest token may not come; the result is that of ``apply``.
    """
    tokens: list[int] = logits.argmax(-1).tolist()
    refused = [
        row
        for row, (token, matcher) in enumerate(zip(tokens, matchers, strict=True))
        if matcher is not None and not matcher.allows(token)
    ]
    if refused:
        masked = logits[refused]
        apply(masked, [matchers[row] for row in refused])
        for row, token in zip(refused, masked.argmax(-1).tolist(), strict=True):
            tokens[row] = token
    for token, matcher in zip(tokens, matchers, strict=True):
        if matcher is not None:
            matcher.consume(token)
    return tokens


def _plain_marks(tokenizer: str) -> str:
    # A grammar has no tokens, only text, and special tokens have none.
    body: dict[str, Json] = json.loads(tokenizer)
    body["truncation"] = body["padding"] = None
    for token in cast("list[dict[str, Json]]", body.get("added_tokens") or []):
        if token["content"] in MARKS:
            token["special"] = False
    return json.dumps(body, ensure_ascii=False)


def _problem(matcher: LLMatcher, action: str) -> str:
    return f"{action}: {matcher.get_error().splitlines()[0]}"
