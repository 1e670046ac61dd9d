"""Turn a snapshot's rows into tokens, and order them so that rows that begin alike are together."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow.parquet as pq

from components import prompt
from components.schema import Answer, Message
from components.train import irrelevant, offers, packing
from components.train.offers import Request
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = 4
"""Different prompts in a batch: rows that begin alike save work together, but are much alike."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as token ids; the last ``answer_length`` of them are what is learned.

    ``may_call``: the request offers tools, so that the answer's first token decides on a call.
    """

    input_ids: list[int]
    answer_length: int
    weight: float
    may_call: bool = False

    @property
    def prompt_length(self) -> int:
        """The tokens before the answer."""
        return len(self.input_ids) - self.answer_length


VALIDATION = "validation.parquet"


def read(snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> list[Tokens]:
    """Read the examples to train on, in the snapshot's order, then those that the recipe makes.

    Those that are too long are left out.

    Raises:
        ValueError: None fits, or what the recipe wants made can't be made of these.
    """
    requests = _requests(snapshot / "train.parquet")
    requests += irrelevant.make(requests, recipe.irrelevant_share, recipe.seed)
    varied = offers.vary(requests, recipe.distractor_share, recipe.seed)
    found = [_tokens(tokenizer, request) for request in varied]
    fitting = [tokens for tokens in found if len(tokens.input_ids) <= recipe.max_length]
    if not fitting:
        shortest = min((len(tokens.input_ids) for tokens in found), default=0)
        raise ValueError(
            f"reading {snapshot}: none of its {len(found)} examples fits into max_length "
            f"{recipe.max_length} (the shortest has {shortest} tokens)"
        )
    return fitting


def read_validation(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> list[Tokens]:
    """Read the examples on which the loss is measured, as they were logged; there may be none."""
    path = snapshot / VALIDATION
    requests = _requests(path) if path.exists() else []
    found = [_tokens(tokenizer, request) for request in requests]
    return [tokens for tokens in found if len(tokens.input_ids) <= recipe.max_length]


def _requests(path: Path) -> list[Request]:
    columns = ["messages", "tools", "answer", "completion", "weight"]
    return [
        Request(
            json.loads(row["messages"]),
            json.loads(row["tools"]),
            tuple(call.name for call in Answer.from_json(row["answer"]).calls),
            row["completion"][0]["content"],  # its arguments are in the order they came in
            row["weight"],
        )
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _tokens(tokenizer: "PreTrainedTokenizerBase", request: Request) -> Tokens:
    messages = prompt.render_prompt(request.messages, request.tools)
    answer: Message = {"role": "assistant", "content": request.answer}
    tokens = tokenize(tokenizer, messages, [answer], request.weight)
    return replace(tokens, may_call=bool(request.tools))


def tokenize(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    completion: Sequence[Message],
    weight: float,
) -> Tokens:
    """Tokenize prompt and answer apart, as they are when the model answers: nothing merges.

    Raises:
        ValueError: The chat template writes the prompt differently once an answer follows.
    """
    before = prompt.to_text(tokenizer, messages)
    whole = cast("str", tokenizer.apply_chat_template([*messages, *completion], tokenize=False))
    if not whole.startswith(before):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} rewrites the prompt when an answer "
            f"follows: {before[-80:]!r} is not how {whole[: len(before)][-80:]!r} ends"
        )
    asked = tokenizer(before, add_special_tokens=False).input_ids
    answered = tokenizer(whole[len(before) :].rstrip("\n"), add_special_tokens=False).input_ids
    return Tokens([*asked, *answered], len(answered), weight)


def in_order(rows: Sequence[packing.Row], batch_size: int, seed: int) -> list[int]:
    """Order rows at random, but those that begin alike by up to a quarter of a batch together.

    Args:
        rows: The token ids of each row.
        batch_size: Rows in a batch.
        seed: Draws the order; equal seeds give equal orders, so a resumed run goes on in it.

    Returns:
        The row numbers in training order.
    """
    draw = random.Random(seed)
    together = max(1, batch_size // PROMPTS)
    families = [draw.sample(family, len(family)) for family in packing.families(rows)]
    units = [
        family[start : start + together]
        for family in families
        for start in range(0, len(family), together)
    ]
    draw.shuffle(units)
    return [row for unit in units for row in unit]
