"""Keys and values of the running requests, in slots, and attention over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253 - the engine is a process of its own
from torch.nn.functional import scaled_dot_product_attention  # noqa: TID253 - as above

from components.extensions.cpu.prefix_cache import forward
from components.extensions.embedded.lazy_memory import lazy_zeros, release

RAGGED = 0.5
"""Slots are attended to in one product, up to the longest one, unless their tokens fill less than
this share of it: then each by itself."""


GPU_SHARE = 1 / 2
"""The share of a GPU's free memory for slots; the rest is for adapters, prefixes and steps."""


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of a prompt: its slot, its first position, its rows in the step."""

    slot: int
    position: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where the rows of a step belong: first one row each of ``decoding``, then parts of prompts.

    ``decoding`` are pairs of a slot and the position of its row.
    """

    decoding: Sequence[tuple[int, int]]
    prompts: Sequence[PromptPart]


@dataclass(frozen=True, slots=True)
class _Plan:
    # a step's layout as tensors, made once for all layers
    slots: torch.Tensor  # of each row
    positions: torch.Tensor  # of each row
    count: int  # of decoding rows
    together: "_Together | None"
    alone: "list[_Alone]"


@dataclass(frozen=True, slots=True)
class _Together:
    # decoding slots in one product: slots 0 to ``count``, also those that don't decode
    count: int
    longest: int
    row_of_slot: torch.Tensor
    slot_of_row: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Alone:
    # rows of one slot in a product of their own
    slot: int
    start: int
    stop: int
    end: int
    mask: torch.Tensor | None


def fitting_context(context: int, slots: int, token_bytes: int, free: int) -> int:
    """Return how much of a context each slot has room for in a GPU with ``free`` bytes.

    There, keys and values don't take memory as they grow, but all of it at once.
    """
    return min(context, int(GPU_SHARE * free) // (slots * token_bytes))


class SlotMemory:
    """Keys and values, ``[layers, 2, slots, positions, heads, width]``; memory as they grow.

    ``context`` is the most tokens of a slot: on CUDA those that fit.
    """

    def __init__(
        self, shape: tuple[int, int, int], slots: int, context: int, like: torch.Tensor
    ) -> None:
        # ``shape`` is the model's layers, key-value heads and their width.
        layers, heads, width = shape
        self.token_bytes = layers * 2 * heads * width * like.itemsize
        if like.device.type == "cuda":
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(like.device)
            context = fitting_context(context, slots, self.token_bytes, free)
        self.stored = lazy_zeros((layers, 2, slots, context, heads, width), like)
        self.context = context
        self._plan: _Plan | None = None

    def put(self, slot: int, start: int, part: torch.Tensor) -> None:
        """Write keys and values of tokens from ``start``, ``[layers, 2, tokens, heads, width]``."""
        self.stored[:, :, slot, start : start + part.shape[2]] = part

    def copy(self, slot: int, start: int, stop: int) -> torch.Tensor:
        """Copy the keys and values of a slot's tokens."""
        return self.stored[:, :, slot, start:stop].clone()

    def free(self, slot: int, end: int) -> None:
        """Erase the first ``end`` tokens of a slot and give their memory back."""
        for layer in self.stored[:, :, slot, :end]:
            release(layer[0])
            release(layer[1])

    def prepare(self, layout: StepLayout) -> None:
        """Make the masks and indices of a step, for its calls of ``attend``."""
        slots, positions = self._rows(layout)
        together, alone = None, [self._part(part) for part in layout.prompts]
        if layout.decoding:
            ends = [position + 1 for _, position in layout.decoding]
            count = max(slot for slot, _ in layout.decoding) + 1
            if sum(ends) >= RAGGED * count * max(ends):
                together = self._together(layout.decoding, count, max(ends))
            else:
                alone += [
                    _Alone(slot, row, row + 1, position + 1, None)
                    for row, (slot, position) in enumerate(layout.decoding)
                ]
        self._plan = _Plan(slots, positions, len(layout.decoding), together, alone)

    def positions(self) -> torch.Tensor:
        """Return the positions of the prepared step's rows."""
        return self._prepared().positions

    def attend(
        self,
        layer: int,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        """Store a step's keys and values, and attend to them and to those of its slots.

        All are ``[rows, heads, width]``; return the same form.
        """
        plan = self._prepared()
        stored = self.stored[layer]
        stored[0, plan.slots, plan.positions] = keys
        stored[1, plan.slots, plan.positions] = values
        attended = torch.empty_like(queries, memory_format=torch.contiguous_format)
        if (together := plan.together) is not None:
            answers = _product(
                queries[together.row_of_slot][:, :, None],
                stored[0, : together.count, : together.longest].transpose(1, 2),
                stored[1, : together.count, : together.longest].transpose(1, 2),
                together.mask,
                scale,
            )
            attended[: plan.count] = answers[:, :, 0][together.slot_of_row]
        for alone in plan.alone:
            answers = _product(
                queries[None, alone.start : alone.stop].transpose(1, 2),
                stored[0, None, alone.slot, : alone.end].transpose(1, 2),
                stored[1, None, alone.slot, : alone.end].transpose(1, 2),
                alone.mask,
                scale,
            )
            attended[alone.start : alone.stop] = answers[0].transpose(0, 1)
        return attended

    def _prepared(self) -> _Plan:
        if self._plan is None:
            raise RuntimeError("attending to slots: no step was prepared")
        return self._plan

    def _rows(self, layout: StepLayout) -> tuple[torch.Tensor, torch.Tensor]:
        slots = [slot for slot, _ in layout.decoding]
        positions = [position for _, position in layout.decoding]
        for part in layout.prompts:
            count = part.stop - part.start
            slots += [part.slot] * count
            positions += range(part.position, part.position + count)
        device = self.stored.device
        return torch.tensor(slots, device=device), torch.tensor(positions, device=device)

    def _together(self, decoding: Sequence[tuple[int, int]], count: int, longest: int) -> _Together:
        # A slot that doesn't decode now sees its first token; the result is not used.
        row_of_slot, lasts = [0] * count, [0] * count
        for row, (slot, position) in enumerate(decoding):
            row_of_slot[slot], lasts[slot] = row, position
        device = self.stored.device
        seen = torch.arange(longest, device=device) <= torch.tensor(lasts, device=device)[:, None]
        return _Together(
            count,
            longest,
            torch.tensor(row_of_slot, device=device),
            torch.tensor([slot for slot, _ in decoding], device=device),
            forward.hiding(seen, self.stored.dtype)[:, None, None],
        )

    def _part(self, part: PromptPart) -> _Alone:
        count, end = part.stop - part.start, part.position + part.stop - part.start
        mask = None
        if count > 1:
            device = self.stored.device
            rows = torch.arange(part.position, end, device=device)
            seen = torch.arange(end, device=device) <= rows[:, None]
            mask = forward.hiding(seen, self.stored.dtype)[None, None]
        return _Alone(part.slot, part.start, part.stop, end, mask)


def _product(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    # The query heads that share a key-value head are more rows of it: keys are not repeated.
    batch, heads, count, width = queries.shape
    shared = heads // keys.shape[1]
    rows = queries.reshape(batch, keys.shape[1], shared * count, width)
    if mask is not None and count > 1:
        mask = mask.repeat(1, 1, shared, 1)
    answers = scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return answers.reshape(batch, heads, count, width)
