"""Where a training is to stop before its end, and how far it came."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.schema import Json


@dataclass(frozen=True, slots=True)
class Stop:
    """A training stops at whichever comes first, saves a checkpoint, and goes on from it later.

    Its schedule stays that of its whole length, so in pieces it ends where it does in one go.
    ``deadline`` is on this machine's clock that is never set (``time.monotonic``), which all its
    processes share; where no step is given, it ends the training for good, as if that had been its
    last step. Stopped before its end, the adapter as it is goes to the folder
    ``keep``, if there is one, so that it can be measured.
    """

    at_step: int | None = None
    deadline: float | None = None
    keep: str | None = None

    def is_due(self, step: int, now: float) -> bool:
        """Tell whether to stop after a step."""
        at_step = self.at_step is not None and step >= self.at_step
        return at_step or (self.deadline is not None and now >= self.deadline)


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a training came: to ``step`` of ``steps``.

    ``tokens`` counts what this run of it saw, in ``stepping`` seconds; ``parameters`` what it
    trains. ``nats`` are, by the number of a validation row, the negative log-likelihood of its
    whole answer, only of a training that is to be compared. ``rows`` says what became of the
    snapshot's rows (``examples.Selection``). ``finished`` tells that the adapter is written;
    otherwise there is a checkpoint.
    """

    step: int
    steps: int
    tokens: int
    stepping: float
    parameters: int
    finished: bool
    validation_loss: float | None = None
    nats: Mapping[int, float] = field(default_factory=dict[int, float])
    rows: Mapping[str, Json] = field(default_factory=dict[str, Json])
