"""What speaks for a turn: the record that each look gives and the book keeps."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["feedback", "inputs", "votes"]


@dataclass(frozen=True, slots=True)
class Sign:
    """One figure beside the bound that it has to reach, and what it tells in words."""

    kind: Kind
    figure: float
    bound: float
    told: str

    @property
    def is_given(self) -> bool:
        """Whether it asks for a turn."""
        return self.figure >= self.bound
