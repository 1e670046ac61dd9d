"""The adapters in memory: their factors in one pool per rank, stacked for batched products."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253 - the engine is a process of its own

from components.serve.embedded.lazy_memory import lazy_zeros, release
from components.serve.embedded.lora_folder import LoraAdapter


@dataclass(frozen=True, slots=True)
class GroupShape:
    """Linear layers with the same input: names, input features, and each one's output features."""

    names: tuple[str, ...]
    inner: int
    outers: tuple[int, ...]


class LoraPool:
    """Adapters of one rank.

    By group ``a`` is ``[places, in, layers * rank]`` and ``b`` for each layer ``[places, rank,
    out]``, so that a batch of rows with different adapters takes one batched product each.
    Memory is taken when a place is first filled.
    """

    def __init__(
        self, rank: int, places: int, groups: Sequence[GroupShape], like: torch.Tensor
    ) -> None:
        self.rank, self.groups = rank, groups
        self.a = [
            lazy_zeros((places, group.inner, len(group.outers) * rank), like) for group in groups
        ]
        self.b = [
            [lazy_zeros((places, rank, outer), like) for outer in group.outers] for group in groups
        ]
        self.free = list(range(places))[::-1]

    def put(self, adapter: LoraAdapter) -> "PooledAdapter":
        """Copy an adapter's factors into a free place."""
        place = self.free.pop()
        factors: list[GroupFactors | None] = []
        for group, a, b in zip(self.groups, self.a, self.b, strict=True):
            parts: list[LayerPart] = []
            column = 0
            for number, (name, outer) in enumerate(zip(group.names, group.outers, strict=True)):
                start = number * self.rank
                if (layer := adapter.layers.get(name)) is not None:
                    rank = len(layer.a)
                    a[place, :, start : start + rank] = layer.a.t()
                    b[number][place, :rank] = layer.b.t()
                    part = LayerPart(column, outer, start, b[number][place])
                    parts.append(part)
                column += outer
            factors.append(GroupFactors(a[place], tuple(parts)) if parts else None)
        return PooledAdapter(adapter.key, self, place, factors)

    def drop(self, adapter: "PooledAdapter") -> None:
        """Erase an adapter's factors and free its place."""
        for stack in (*self.a, *(layer for group in self.b for layer in group)):
            release(stack[adapter.place])
        self.free.append(adapter.place)


@dataclass(frozen=True, slots=True)
class LayerPart:
    """A layer's ``b``, its columns in the group's output, and where its rank begins in ``a``."""

    column: int
    width: int
    start: int
    b: torch.Tensor


@dataclass(frozen=True, slots=True)
class GroupFactors:
    """The factors of a group's layers, ``a`` of all of them side by side."""

    a: torch.Tensor
    parts: tuple[LayerPart, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PooledAdapter:
    """An adapter in its pool's ``place``; ``factors`` by group, ``None`` where it has none."""

    key: str
    pool: LoraPool
    place: int
    factors: list[GroupFactors | None]
