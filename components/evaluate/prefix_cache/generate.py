"""Answer prompts greedily in one continuous batch: a finished row's slot is taken by the next.

What prompts begin with is read once, and a prompt that is asked twice is answered once. Stock
generation goes on with every row of a batch until its longest answer ends; most answers are short
calls. Keys and values of a live row stand in a slot of its own: the row is as long as it is, its
new token is written where it ends, and nothing is moved or padded. Live rows have the first slots.
Imported late, since it loads torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late
from transformers.cache_utils import Cache, DynamicLayer  # noqa: TID253 - as above

from components.evaluate.prefix_cache import forward, tree
from components.evaluate.prefix_cache.forward import KeysAndValues
from components.evaluate.prefix_cache.tree import Row

if TYPE_CHECKING:
    from components.evaluate.prefix_cache.forward import Model

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


class Slots:
    """The slots of all layers; ``cache`` is what the model writes to and reads."""

    def __init__(self, like: KeysAndValues, count: int, room: int) -> None:
        """Make empty slots.

        Args:
            like: Any row's keys and values, for their shapes.
            count: How many slots.
            room: How many tokens each has room for.
        """
        self.ends = torch.zeros(count, dtype=torch.long, device=like[0][0].device)
        self._layers = [_SlotLayer(keys, values, self.ends, room) for keys, values in like]
        self.cache = Cache(layers=list(self._layers))

    def put(self, slot: int, row: KeysAndValues) -> None:
        """Put a row into a slot, in place of what was there."""
        end = row[0][0].shape[1]
        for layer, (keys, values) in zip(self._layers, row, strict=True):
            layer.all_keys[slot, :, :end], layer.all_values[slot, :, :end] = keys, values
        self.ends[slot] = end

    def move(self, source: int, slot: int) -> None:
        """Move a row into another slot."""
        end = int(self.ends[source])
        for layer in self._layers:
            for stored in (layer.all_keys, layer.all_values):
                stored[slot, :, :end] = stored[source, :, :end]
        self.ends[slot] = end

    def seen(self, count: int) -> torch.Tensor:
        """Say what the next tokens of the first ``count`` rows see, ``[count, tokens]``."""
        ends = self.ends[:count]
        longest = int(ends.max()) + 1
        for layer in self._layers:
            layer.longest = longest
        return torch.arange(longest, device=ends.device)[None] <= ends[:, None]


class _SlotLayer(DynamicLayer):
    """One layer's slots, ``[slots, heads, room, width]``; zeros where nothing was written."""

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, ends: torch.Tensor, room: int
    ) -> None:
        super().__init__()
        self.all_keys, self.all_values = (
            one.new_zeros(len(ends), one.shape[0], room, one.shape[2]) for one in (keys, values)
        )
        self.ends, self.longest = ends, room

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token of each of the first rows; give those rows as far as the longest goes."""
        count = len(key_states)
        rows, ends = torch.arange(count, device=key_states.device), self.ends[:count]
        self.all_keys[rows, :, ends] = key_states[:, :, 0]
        self.all_values[rows, :, ends] = value_states[:, :, 0]
        return self.all_keys[:count, :, : self.longest], self.all_values[:count, :, : self.longest]


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
        model: A causal language model that ``forward.can_pack``.
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
    rows = [prompts[number] for number in tree.by_length(prompts)]
    grown = tree.grow(rows)
    of = {int(leaf): row for leaf, row in zip(grown.leaves, rows, strict=True)}
    for seen in forward.read(model, grown, grown.leaves, room):
        firsts = seen.logits.argmax(-1).tolist()
        for node, first in zip(seen.nodes.tolist(), firsts, strict=True):
            yield _Answer(of[node], [first]), seen.behind(node)


def _next(model: "Model", slots: Slots, live: Sequence[_Answer]) -> list[int]:
    """Give the live answers' next tokens."""
    ends = slots.ends[: len(live)]
    seen = model(
        input_ids=torch.tensor([answer.tokens[-1:] for answer in live], device=ends.device),
        position_ids=ends[:, None].clone(),
        attention_mask=forward.hiding(slots.seen(len(live)), forward.dtype_of(model))[
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
