"""Keys and values of rows that are being answered, each in a slot of its own.

A row is as long as it is: its new token is written where it ends, and nothing is moved or padded.
A finished row's slot is another's at once. Rows that are answered stand in the first slots.
Imported late, since it loads torch.
"""

import torch  # noqa: TID253 - this module is itself imported late
from transformers.cache_utils import Cache, DynamicLayer  # noqa: TID253 - as above

from components.evaluate.reading import KeysAndValues


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
        self._layers = [_Layer(keys, values, self.ends, room) for keys, values in like]
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


class _Layer(DynamicLayer):
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
