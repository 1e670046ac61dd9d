"""Score continuations and generate greedy answers over a prefix tree.

All requests are one tree, so a context is read once for all its choices, and so is a shared prefix
of several contexts. Logits are computed only for the tokens of continuations; most of a prompt has
none. Imported late, since it loads torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from transformers.cache_utils import Cache, DynamicLayer  # noqa: TID253 - as above

from components.extensions.cpu.prefix_cache import forward
from components.extensions.cpu.prefix_cache.forward import Ints, KeysAndValues, Tree
from components.models import constrained
from components.models.constrained import ConstrainedAnswer, Matcher, Vocabulary
from components.models.prefix_tree import Row, scored_row

if TYPE_CHECKING:
    from components.extensions.cpu.prefix_cache.forward import Model, Reading


@dataclass(frozen=True, slots=True)
class _Targets:
    """The continuations' tokens, with their predicting nodes and their requests, sorted by node."""

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
    """Score the continuations of contexts, by a model that ``forward.can_pack``.

    The model sees at most ``window`` tokens: a longer context loses its beginning. ``room`` is
    the most tokens of a pack; ``report`` is called after each with the number of finished
    requests.

    Returns:
        For each request the sum of the log-probabilities of its continuation's tokens (nats), and
        whether all of them were the likeliest.

    Raises:
        ValueError: A context or continuation is empty, or a continuation longer than the window.
    """
    rows = [scored_row(context, continuation, window) for context, continuation in requests]
    order = sorted(range(len(rows)), key=lambda number: tuple(rows[number]))
    grown = forward.grow([rows[number] for number in order])
    targets = _targets(grown, order, [continuation for _, continuation in requests])
    sums, likeliest = np.zeros(len(requests)), np.ones(len(requests), np.bool_)
    ends = np.sort(grown.leaves)
    for seen in forward.read(model, grown, np.unique(targets.nodes), room):
        _score(seen, targets, sums, likeliest)
        report(int(np.searchsorted(ends, seen.pack.stop)))
    return list(zip(sums.tolist(), likeliest.tolist(), strict=True))


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
    first, last = np.searchsorted(targets.nodes, [seen.pack.start, seen.pack.stop])
    places = torch.from_numpy(np.searchsorted(seen.nodes, targets.nodes[first:last]))
    tokens = torch.from_numpy(targets.tokens[first:last])
    device = seen.logits.device
    at = seen.logits[places.to(device), tokens.to(device)]
    logs = (at - seen.logits.logsumexp(-1)[places.to(device)]).double().cpu().numpy()
    best = seen.logits.argmax(-1).cpu()[places].eq(tokens).numpy()
    np.add.at(sums, targets.requests[first:last], logs)
    np.logical_and.at(likeliest, targets.requests[first:last], best)


REFILL = 1 / 4  # the share of slots that must be free before further prompts are read


ConstrainedRow: TypeAlias = tuple[Row, str | None]
"""A prompt's tokens, and the grammar of its answer, if it has one."""


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """When an answer ends.

    ``is_over`` is called with the tokens so far after each token, and returns whether the last one
    ends the answer; ``most`` is the largest number of tokens.
    """

    is_over: Callable[[Sequence[int]], bool]
    most: int

    def end(self, tokens: Sequence[int]) -> bool:
        """Return whether an answer ends with its last token."""
        return len(tokens) >= self.most or self.is_over(tokens)


class Slots:
    """The slots of all layers; ``cache`` is the model's key-value cache over them."""

    def __init__(self, like: KeysAndValues, count: int, room: int) -> None:
        # ``like`` are any row's keys and values; ``room`` is the most tokens of a slot.
        self.ends = torch.zeros(count, dtype=torch.long, device=like[0][0].device)
        self._layers = [_SlotLayer(keys, values, self.ends, room) for keys, values in like]
        self.cache = Cache(layers=list(self._layers))

    def put(self, slot: int, row: KeysAndValues) -> None:
        """Overwrite a slot with a row."""
        end = row[0][0].shape[1]
        for layer, (keys, values) in zip(self._layers, row, strict=True):
            layer.all_keys[slot, :, :end], layer.all_values[slot, :, :end] = keys, values
        self.ends[slot] = end

    def move(self, source: int, slot: int) -> None:
        """Copy a row into another slot."""
        end = int(self.ends[source])
        for layer in self._layers:
            for stored in (layer.all_keys, layer.all_values):
                stored[slot, :, :end] = stored[source, :, :end]
        self.ends[slot] = end

    def seen(self, count: int) -> torch.Tensor:
        """Return the mask of the next tokens of the first ``count`` rows, ``[count, tokens]``."""
        ends = self.ends[:count]
        longest = int(ends.max()) + 1
        for layer in self._layers:
            layer.longest = longest
        return torch.arange(longest, device=ends.device)[None] <= ends[:, None]


class _SlotLayer(DynamicLayer):
    """One layer's slots, ``[slots, heads, room, width]``; initially zeros."""

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, ends: torch.Tensor, room: int
    ) -> None:
        super().__init__()
        self.all_keys, self.all_values = (
            like.new_zeros(len(ends), like.shape[0], room, like.shape[2]) for like in (keys, values)
        )
        self.ends, self.longest = ends, room

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token of each of the first rows; return these rows up to the longest one."""
        count = len(key_states)
        rows, ends = torch.arange(count, device=key_states.device), self.ends[:count]
        self.all_keys[rows, :, ends] = key_states[:, :, 0]
        self.all_values[rows, :, ends] = value_states[:, :, 0]
        return self.all_keys[:count, :, : self.longest], self.all_values[:count, :, : self.longest]


@dataclass(frozen=True, slots=True)
class _Answer:
    request: "ConstrainedRow"
    tokens: list[int]
    matcher: Matcher | None


def greedy(
    model: "Model",
    requests: Sequence[ConstrainedRow],
    limits: GenerationLimits,
    *,
    slots: int,
    room: int,
    report: Callable[[int], None],
    vocabulary: Vocabulary | None = None,
) -> list[ConstrainedAnswer]:
    """Generate greedy answers to prompts, none empty, by a model that ``forward.can_pack``.

    ``slots`` answers are generated at once; ``room`` is the most prompt tokens of a pack.
    ``report`` is called after each answer with the number of answered prompts. ``vocabulary``
    follows the grammars. Return the answers in the order of the requests.
    """
    keys = [(tuple(prompt), grammar) for prompt, grammar in requests]
    counts = Counter[ConstrainedRow](keys)
    answers: dict[ConstrainedRow, ConstrainedAnswer] = {}
    done = 0
    for answer in _answer(model, list(counts), limits, slots, room, vocabulary):
        problem = None if answer.matcher is None else answer.matcher.problem
        answers[answer.request] = ConstrainedAnswer(answer.tokens, problem)
        done += counts[answer.request]
        report(done)
    return [answers[key] for key in keys]


@torch.inference_mode()
def _answer(
    model: "Model",
    requests: Sequence[ConstrainedRow],
    limits: GenerationLimits,
    count: int,
    room: int,
    vocabulary: Vocabulary | None,
) -> Iterator[_Answer]:
    started = _start(model, requests, room, vocabulary)
    longest = max((len(prompt) for prompt, _ in requests), default=0) + limits.most
    live: list[_Answer] = []
    slots: Slots | None = None
    while True:
        if len(live) <= count * (1 - REFILL):
            while len(live) < count and (following := next(started, None)) is not None:
                answer, keys_and_values = following
                if limits.end(answer.tokens):
                    yield answer
                    continue
                slots = slots or Slots(keys_and_values, count, longest)
                slots.put(len(live), keys_and_values)
                live.append(answer)
        if slots is None or not live:
            return
        for answer, token in zip(live, _next(model, slots, live), strict=True):
            answer.tokens.append(token)
        yield from _remove_finished(live, slots, limits)


def _start(
    model: "Model",
    requests: Sequence[ConstrainedRow],
    room: int,
    vocabulary: Vocabulary | None,
) -> "Iterator[tuple[_Answer, KeysAndValues]]":
    # Long prompts first; answers come with their first token, and their keys and values.
    grammars: dict[Row, list[str | None]] = {}
    for prompt, grammar in requests:
        grammars.setdefault(prompt, []).append(grammar)
    prompts = list(grammars)
    rows = [prompts[index] for index in forward.by_length(prompts)]
    tree = forward.grow(rows)
    row_of = {int(leaf): row for leaf, row in zip(tree.leaves, rows, strict=True)}
    for reading in forward.read(model, tree, tree.leaves, room):
        nodes = reading.nodes.tolist()
        begun = [
            (place, node, _Answer((row_of[node], grammar), [], _matcher(vocabulary, grammar)))
            for place, node in enumerate(nodes)
            for grammar in grammars[row_of[node]]
        ]
        places = [place for place, _, _ in begun]
        firsts = constrained.greedy(
            reading.logits[places], [answer.matcher for _, _, answer in begun]
        )
        for (_, node, answer), first in zip(begun, firsts, strict=True):
            answer.tokens.append(first)
            yield answer, reading.behind(node)


def _matcher(vocabulary: Vocabulary | None, grammar: str | None) -> Matcher | None:
    return None if vocabulary is None or grammar is None else vocabulary.start(grammar)


def _next(model: "Model", slots: Slots, live: Sequence[_Answer]) -> list[int]:
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
    return constrained.greedy(seen.logits[:, -1], [answer.matcher for answer in live])


def _remove_finished(
    live: list[_Answer], slots: Slots, limits: GenerationLimits
) -> Iterator[_Answer]:
    for slot in reversed(range(len(live))):
        if limits.end(live[slot].tokens):
            yield live[slot]
            last = live.pop()  # moves into the free slot
            if slot < len(live):
                slots.move(len(live), slot)
                live[slot] = last
