"""Answer prompts greedily in one continuous batch: a finished row's slot is taken by the next.

What prompts begin with is read once, and a prompt that is asked twice is answered once. Stock
generation goes on with every row of a batch until its longest answer ends; most answers are short
calls.
Imported late, since it loads torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late

from components.evaluate import prefixes, reading
from components.evaluate.prefixes import Row
from components.evaluate.slots import Slots

if TYPE_CHECKING:
    from components.evaluate.reading import KeysAndValues, Model

REFILL = 1 / 4
"""Of the slots: how many are free before further prompts are read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends.

    ``is_over`` tells of its tokens so far, after each, whether the last one ended it; ``most`` is
    how many it has at most.
    """

    is_over: Callable[[Sequence[int]], bool]
    most: int

    def end(self, tokens: Sequence[int]) -> bool:
        """Tell whether an answer ends with the last of its tokens."""
        return len(tokens) >= self.most or self.is_over(tokens)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is written of the answer to a prompt so far."""

    prompt: Row
    tokens: list[int]


def greedy(
    model: "Model",
    prompts: Sequence[Row],
    limits: Limits,
    *,
    slots: int,
    room: int,
    report: Callable[[int], None],
) -> list[list[int]]:
    """Take the likeliest token until an answer is over.

    Args:
        model: A causal language model that ``reading.can_pack``.
        prompts: Token ids, none empty.
        limits: When an answer ends.
        slots: How many answers are written at once.
        room: How many tokens of prompts are read at once.
        report: Called after each answer with the number of prompts that are answered.

    Returns:
        The answers' tokens, with the one that ended each, in the order of the prompts.
    """
    asked = Counter(tuple(prompt) for prompt in prompts)
    answers: dict[Row, list[int]] = {}
    done = 0
    for answer in _answer(model, list(asked), limits, slots, room):
        answers[answer.prompt] = answer.tokens
        done += asked[tuple(answer.prompt)]
        report(done)
    return [answers[tuple(prompt)] for prompt in prompts]


@torch.inference_mode()
def _answer(
    model: "Model", prompts: Sequence[Row], limits: Limits, count: int, room: int
) -> Iterator[_Answer]:
    """Answer prompts, each as it is done."""
    begun = _begin(model, prompts, room)
    longest = max(map(len, prompts), default=0) + limits.most
    live: list[_Answer] = []
    slots: Slots | None = None
    while True:
        if len(live) <= count * (1 - REFILL):
            while len(live) < count and (one := next(begun, None)) is not None:
                answer, behind = one
                if limits.end(answer.tokens):
                    yield answer
                    continue
                slots = slots or Slots(behind, count, longest)
                slots.put(len(live), behind)
                live.append(answer)
        if slots is None or not live:
            return
        for answer, token in zip(live, _next(model, slots, live), strict=True):
            answer.tokens.append(token)
        yield from _leave(live, slots, limits)


def _begin(
    model: "Model", prompts: Sequence[Row], room: int
) -> "Iterator[tuple[_Answer, KeysAndValues]]":
    """Read prompts, long ones first; give each its answer's first token."""
    rows = [prompts[number] for number in prefixes.by_length(prompts)]
    tree = prefixes.grow(rows)
    of = {int(leaf): row for leaf, row in zip(tree.leaves, rows, strict=True)}
    for seen in reading.read(model, tree, tree.leaves, room):
        firsts = seen.logits.argmax(-1).tolist()
        for node, first in zip(seen.nodes.tolist(), firsts, strict=True):
            yield _Answer(of[node], [first]), seen.behind(node)


def _next(model: "Model", slots: Slots, live: Sequence[_Answer]) -> list[int]:
    """Give the live answers' next tokens."""
    ends = slots.ends[: len(live)]
    seen = model(
        input_ids=torch.tensor([answer.tokens[-1:] for answer in live], device=ends.device),
        position_ids=ends[:, None].clone(),
        attention_mask=reading.hiding(slots.seen(len(live)), reading.dtype_of(model))[
            :, None, None
        ],
        cache=slots.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    ends += 1
    return seen.logits[:, -1].argmax(-1).tolist()


def _leave(live: list[_Answer], slots: Slots, limits: Limits) -> Iterator[_Answer]:
    """Take out the answers that are over; the last live one moves into the slot of each."""
    for slot in reversed(range(len(live))):
        if limits.end(live[slot].tokens):
            yield live[slot]
            last = live.pop()
            if slot < len(live):
                slots.move(len(live), slot)
                live[slot] = last
