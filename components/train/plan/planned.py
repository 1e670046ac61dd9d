"""The plan as a record, and as JSON between the process that makes it and the one that shows it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import TypeAdapter

from components.train.plan.memory import Memory
from components.train.plan.parameters import Parameters
from components.train.plan.work import Work

Device: TypeAlias = Literal["gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class Option:
    """A way to split a step into batches, and what the heaviest step takes."""

    batch: int
    accumulation: int
    checkpointing: bool
    memory: Memory

    @property
    def knobs(self) -> dict[str, int | bool]:
        """The recipe's knobs for it."""
        return {
            "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation,
            "gradient_checkpointing": self.checkpointing,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training will take.

    ``asked`` is the recipe's own split, ``largest`` the one of the largest batch that fits in
    ``free`` bytes, with activations computed anew only where nothing else does; ``None`` where
    nothing fits. ``is_elsewhere``: it was planned for the GPU of another machine. The
    heaviest step computes ``heaviest_tokens``; ``longest_row`` is of all.
    """

    device: Device
    is_elsewhere: bool
    free: int
    parameters: Parameters
    work: Work
    heaviest_tokens: int
    longest_row: int
    asked: Option
    largest: Option | None

    @property
    def fits(self) -> bool:
        """Whether the recipe's own split does."""
        return self.asked.memory.peak <= self.free

    @property
    def advised(self) -> Option | None:
        """The recipe's own split where it fits, else the largest that does."""
        return self.asked if self.fits else self.largest


AS_JSON = TypeAdapter(Plan)
