"""Say how likely a model finds each continuation of a context: what multiple choice is scored by.

All requests are one tree, so a context is read once for all its choices, and so is what several
contexts begin with. The vocabulary's logits are computed only where a continuation's tokens are
targets; most of a prompt has none.
Imported late, since it loads torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from transformers.cache_utils import Cache, DynamicLayer  # noqa: TID253 - as above

from components.evaluate.prefix_cache import forward
from components.evaluate.prefix_cache.forward import Ints, KeysAndValues, Tree
from components.models.prefix_tree import Row

if TYPE_CHECKING:
    from components.evaluate.prefix_cache.forward import Model, Reading


@dataclass(frozen=True, slots=True)
class _Targets:
    """Tokens that continuations have, sorted by the node that tells them: one place each, all."""

    nodes: Ints
    tokens: Ints
    requests: Ints


def likelihoods(
    model: "Model",
    requests: Sequence[tuple[Row, Row]],
    *,
    window: int,
    room: int,
    report: Callable[[int], None],
) -> list[tuple[float, bool]]:
    """Score continuations.

    Args:
        model: A causal language model that ``forward.can_pack``.
        requests: A context and its continuation each, token ids, neither of them empty.
        window: The most tokens that the model sees; a longer context loses its beginning.
        room: How many tokens are read at once.
        report: Called after each pack with the number of requests that are done.

    Returns:
        Of each request the sum of the log-probabilities of its continuation's tokens (nats), and
        whether each was the likeliest.

    Raises:
        ValueError: A context or continuation is empty, or a continuation longer than the window.
    """
    rows = [_row(context, continuation, window) for context, continuation in requests]
    order = sorted(range(len(rows)), key=lambda number: tuple(rows[number]))
    grown = forward.grow([rows[number] for number in order])
    targets = _targets(grown, order, [continuation for _, continuation in requests])
    sums, likeliest = np.zeros(len(requests)), np.ones(len(requests), np.bool_)
    ends = np.sort(grown.leaves)
    for seen in forward.read(model, grown, np.unique(targets.nodes), room):
        _score(seen, targets, sums, likeliest)
        report(int(np.searchsorted(ends, seen.pack.stop)))
    return list(zip(sums.tolist(), likeliest.tolist(), strict=True))


def _row(context: Row, continuation: Row, window: int) -> Row:
    """Give what the model reads: all but the last token, whose likelihood those before it tell."""
    if not context or not 0 < len(continuation) <= window:
        raise ValueError(
            f"scoring a continuation of {len(continuation)} tokens after {len(context)}: it wants "
            f"one token before it, and to have between 1 and {window} of its own"
        )
    return [*context, *continuation][-(window + 1) : -1]


def _targets(tree: Tree, order: Sequence[int], continuations: Sequence[Row]) -> _Targets:
    nodes: list[int] = []
    tokens: list[int] = []
    requests: list[int] = []
    for place, number in enumerate(order):
        continuation = continuations[number]
        nodes += tree.last(place, len(continuation))
        tokens += continuation
        requests += [number] * len(continuation)
    sort = np.argsort(np.array(nodes, np.int64), kind="stable")
    return _Targets(*(np.array(column, np.int64)[sort] for column in (nodes, tokens, requests)))


def _score(seen: "Reading", targets: _Targets, sums: np.ndarray, likeliest: np.ndarray) -> None:
    """Add to the requests' scores what one pack tells."""
    first, last = np.searchsorted(targets.nodes, [seen.pack.start, seen.pack.stop])
    places = torch.from_numpy(np.searchsorted(seen.nodes, targets.nodes[first:last]))
    tokens = torch.from_numpy(targets.tokens[first:last])
    device = seen.logits.device
    at = seen.logits[places.to(device), tokens.to(device)]
    logs = (at - seen.logits.logsumexp(-1)[places.to(device)]).double().cpu().numpy()
    best = seen.logits.argmax(-1).cpu()[places].eq(tokens).numpy()
    np.add.at(sums, targets.requests[first:last], logs)
    np.logical_and.at(likeliest, targets.requests[first:last], best)


REFILL = 1 / 4
"""Of the slots: how many are free before further prompts are read."""


@dataclass(frozen=True, slots=True)
class GenerationLimits:
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
    limits: GenerationLimits,
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
    model: "Model", prompts: Sequence[Row], limits: GenerationLimits, count: int, room: int
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
    rows = [prompts[number] for number in forward.by_length(prompts)]
    grown = forward.grow(rows)
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


def _leave(live: list[_Answer], slots: Slots, limits: GenerationLimits) -> Iterator[_Answer]:
    """Take out the answers that are over; the last live one moves into the slot of each."""
    for slot in reversed(range(len(live))):
        if limits.end(live[slot].tokens):
            yield live[slot]
            last = live.pop()
            if slot < len(live):
                slots.move(len(live), slot)
                live[slot] = last
