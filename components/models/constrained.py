"""Masks on logits that keep answers within a grammar of ``chat.answer_grammar``.

Imported late, since it loads torch.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from transformers import LogitsProcessor  # noqa: TID253 - as above

from components.models import base as bases

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MARKS = frozenset(["<tool_call>", "</tool_call>", "<|python_tag|>", "<think>", "</think>"])
"""Text for a grammar, though llguidance holds added tokens with such names for special ones, and
special tokens are never text."""

GRAMMARS = 64  # compiled ones that are kept; requests of an application offer the same tools

LIMITS = LLParserLimits(verbose_errors=False)  # errors of the others may quote what users wrote


class ConstraintError(ValueError):
    """Raised when a grammar does not compile with a base's tokens."""


@dataclass(frozen=True, slots=True)
class ConstrainedAnswer:
    """An answer's tokens with the last one; ``problem`` is why its grammar was not followed."""

    tokens: list[int]
    problem: str | None = None


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
        self._ends = frozenset(stops)
        body = copy(backend)
        body.no_padding()
        body.no_truncation()
        self._tokens = LLTokenizer(body.to_str(), n_vocab=n_vocab, eos_token=stops)
        if special_marks(tokenizer):
            plain = _PlainMarks(self._tokens, tokenizer)
            self._tokens = LLTokenizer(plain, n_vocab=n_vocab, eos_token=stops)  # pyright: ignore[reportArgumentType] - it has what a TokenizerWrapper has
        self._compiled = lru_cache(GRAMMARS)(self._compile)

    def start(self, grammar: str) -> "Matcher":
        """Begin an answer.

        Raises:
            ConstraintError: The grammar does not compile.
        """
        return Matcher(self._compiled(grammar).deep_copy(), self._ends)

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

    def __init__(self, matcher: LLMatcher, ends: frozenset[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self.is_over = False  # whether an end token came
        self.problem: str | None = None

    @property
    def may_end(self) -> bool:
        """Whether the answer could end here."""
        return self.problem is not None or self._matcher.is_accepting()

    def allows(self, token: int) -> bool:
        """Return whether a token may come next; takes far less time than a mask."""
        if token in self._ends:
            return self.may_end
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
        if token in self._ends and self.may_end:
            self.is_over = True
        elif self.problem is None and not self._matcher.consume_token(token):
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


def special_marks(tokenizer: "PreTrainedTokenizerBase") -> frozenset[str]:
    """Return the forms' marks that are tokens of their own."""
    return MARKS & _added(tokenizer).keys()


def _added(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    return cast("Any", tokenizer).get_added_vocab()  # the base class leaves it to others


class _PlainMarks:
    """A tokenizer for llguidance whose marks are text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: LLTokenizer, tokenizer: "PreTrainedTokenizerBase") -> None:
        added = _added(tokenizer)
        marks = {added[mark] for mark in special_marks(tokenizer)}
        ids = range(tokens.vocab_size)
        self.eos_token_id = tokens.eos_token
        self.tokens = [tokens.decode_bytes([token]) for token in ids]
        self.special_token_ids = [t for t in ids if tokens.is_special_token(t) and t not in marks]
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        """Return the tokens of a text."""
        known = text.decode() if isinstance(text, bytes) else text
        return self._tokenizer.encode(known, add_special_tokens=False)


def _problem(matcher: LLMatcher, action: str) -> str:
    return f"{action}: {matcher.get_error().splitlines()[0]}"


def vocabulary_of(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> Vocabulary:
    """Return a base's vocabulary with all tokens that end its answers."""
    head = model.get_output_embeddings()
    width: int = head.weight.shape[0]  # pyright: ignore[reportOptionalMemberAccess] - it has logits
    return Vocabulary(tokenizer, width, bases.end_tokens(model, tokenizer))


class GrammarMasks(LogitsProcessor):
    """Keeps the answers of ``generate`` within their grammars, a matcher for each row."""

    def __init__(self, matchers: Sequence[Matcher | None]) -> None:
        self._matchers = [*matchers]
        self._has_begun = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next tokens; those that may not come have none."""
        if self._has_begun:
            for matcher, token in zip(self._matchers, input_ids[:, -1].tolist(), strict=True):
                if matcher is not None:
                    matcher.consume(token)
        self._has_begun = True
        # What follows an end is padding.
        self._matchers = [m if m is not None and not m.is_over else None for m in self._matchers]
        masked = scores.clone()
        apply(masked, self._matchers)
        return masked
