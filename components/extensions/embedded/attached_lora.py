"""An adapter's factors in memory, laid out for the products of a step."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch  # noqa: TID253 - the engine is a process of its own

from components.extensions.embedded.lazy_memory import lazy_zeros
from components.extensions.embedded.lora_folder import LoraAdapter, LoraFactors

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class GroupShape:
    """Linear layers with the same input: names, input features, and each one's output features."""

    names: tuple[str, ...]
    inner: int
    outers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupFactors:
    """The factors of a group's adapted layers.

    ``a`` is that of all of them side by side, ``[in, ranks]``, ``ranks`` the rank of each, and
    ``b`` each one's number in the group and ``[rank, out]``.
    """

    a: torch.Tensor
    ranks: tuple[int, ...]
    b: tuple[tuple[int, torch.Tensor], ...]


@dataclass(slots=True, eq=False)
class AttachedLora:
    """An adapter by groups, ``None`` where it has no layer; ``number`` counts all that were loaded.

    ``is_forgotten`` once it was unloaded: its last requests leave nothing behind.
    """

    key: str
    groups: list[GroupFactors | None]
    number: int = field(default_factory=lambda: next(_numbers))
    is_forgotten: bool = False


def attach(
    adapter: LoraAdapter, groups: Sequence[GroupShape], device: torch.device
) -> AttachedLora:
    """Lay out an adapter in fp32 in one piece of memory, which goes when its last user goes."""
    numbers = sum(pair.a.numel() + pair.b.numel() for pair in adapter.layers.values())
    rest = lazy_zeros((numbers,), torch.empty(0, device=device))

    def place(*parts: torch.Tensor) -> torch.Tensor:
        nonlocal rest
        shape = (len(parts[0]), sum(part.shape[1] for part in parts))
        placed, rest = rest[: shape[0] * shape[1]].view(shape), rest[shape[0] * shape[1] :]
        return torch.cat([part.to(device) for part in parts], 1, out=placed)

    attached: list[GroupFactors | None] = []
    for group in groups:
        layers: list[tuple[int, LoraFactors]] = [
            (number, adapter.layers[name])
            for number, name in enumerate(group.names)
            if name in adapter.layers
        ]
        if not layers:
            attached.append(None)
            continue
        a = place(*(pair.a.t() for _, pair in layers))
        ranks = tuple(len(pair.a) for _, pair in layers)
        b = tuple((number, place(pair.b.t())) for number, pair in layers)
        attached.append(GroupFactors(a, ranks, b))
    return AttachedLora(adapter.key, attached)
