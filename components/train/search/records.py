"""What a candidate is to do at a rung, and what came of it; files in the search's folder."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from components import manifest
from components.costs import Work
from components.schema import Config, Progress
from components.train.search.plan import Entry


class Order(Config):
    """What the training of a candidate's rung is told.

    It trains until ``at_step``, to its end where that is ``None``, and no longer than until
    ``seconds`` are over, where any are given. Then its ``metric`` is measured on the validation
    side, if there is one to compare by. ``parent`` is the MLflow run of the search.
    """

    entry: Entry
    rung: int
    at_step: int | None = None
    seconds: float | None = None
    metric: str | None = None
    parent: str = ""

    @property
    def stop(self) -> int:
        """The step that it is planned to come to."""
        return self.entry.stops[self.rung]


class Outcome(Config):
    """How a candidate stands after a rung, or why it does not.

    ``tokens``, ``seconds`` and ``work`` are what this rung took, the work ``None`` if its job was
    killed; ``stops.Reached`` says what the rest is.
    ``scores`` are the target metric's, by the number of a validation row, where it was measured.
    ``trouble`` is the reason of a training that failed.
    """

    key: str
    rung: int
    step: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    work: Work | None = None
    stepping: float = 0.0
    parameters: int = 0
    validation_loss: float | None = None
    nats: dict[int, float] = Field(default_factory=dict[int, float])
    scores: dict[int, float] = Field(default_factory=dict[int, float])
    rows: dict[str, object] = Field(default_factory=dict[str, object])
    finished: bool = False
    trouble: str | None = None

    @property
    def score(self) -> float | None:
        """The mean of the target metric; ``None`` where it was not measured."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else None

    @property
    def objection(self) -> str | None:
        """Say why it can't be compared; ``None`` where it can."""
        if self.trouble is None and not self.nats:
            return "no validation row fits into its max_length"
        return self.trouble


def order_file(search: Path, rung: int, key: str) -> Path:
    """Name the file of a candidate's order."""
    return search / f"rung-{rung}" / f"{key}.order.json"


def give(search: Path, order: Order) -> Path:
    """Write an order, and name its file."""
    path = order_file(search, order.rung, order.entry.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(path, order.model_dump_json(indent=2))
    return path


def outcome_file(order: Path) -> Path:
    """Name the file of what came of an order."""
    return order.with_name(order.name.replace(".order.json", ".json"))


def outcome(order: Path) -> Outcome | None:
    """Read what came of an order; ``None`` while nothing has."""
    try:
        return Outcome.model_validate_json(outcome_file(order).read_text())
    except FileNotFoundError:
        return None


def keep(order: Path, came: Outcome) -> None:
    """Write what came of an order; it is not carried out again."""
    manifest.write_atomically(outcome_file(order), came.model_dump_json(indent=2))


def seconds(search: Path) -> float:
    """Sum the time that all candidates of a search have trained so far."""
    orders = sorted(search.glob("rung-*/*.order.json"))
    return sum(came.seconds for order in orders if (came := outcome(order)) is not None)


def works(search: Path) -> list[Work | None]:
    """List the work that each candidate of a search took at each rung so far."""
    orders = sorted(search.glob("rung-*/*.order.json"))
    return [came.work for order in orders if (came := outcome(order)) is not None]


def together(orders: Sequence[Order], said: Sequence[Progress | None]) -> Progress:
    """Say how far the candidates of a rung are, all together, with the figures of one under way.

    Args:
        orders: Those of the rung.
        said: The newest word of each one's training, ``None`` before its first.
    """
    done = [
        min(one.done, order.stop) if one else 0 for one, order in zip(said, orders, strict=True)
    ]
    going = [
        one.figures
        for one, order in zip(said, orders, strict=True)
        if one and one.done < order.stop
    ]
    figures = {name: value for name, value in (going or [{}])[-1].items() if name != "seconds_left"}
    rung, many = orders[0].rung, "" if len(orders) == 1 else "s"
    stage = f"rung {rung + 1}, {len(orders)} candidate{many}:" if rung >= 0 else "measuring paces:"
    return Progress(stage, sum(done), sum(order.stop for order in orders), "steps", figures)
