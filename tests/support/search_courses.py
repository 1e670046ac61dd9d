"""Candidates with made-up lengths, and a training that only pretends: what it would measure."""

from collections.abc import Callable, Sequence
from pathlib import Path

from components.extensions.search.run import TrialOrder, TrialOutcome
from components.extensions.search.schedule import CandidateCourse, PlannedTrial, TrainingPace
from components.train.candidates import SearchCandidate, SearchSettings
from components.train.recipe import Recipe

ROWS = 40


def search(**budget: float) -> SearchSettings:
    return SearchSettings.model_validate({"over": {"r": [1, 2]}, "budget": budget})


def courses(
    lengths: Sequence[Sequence[int]], pace: TrainingPace | None = None
) -> list[CandidateCourse]:
    """Return a course of one epoch for each list of tokens by step; they differ in their rank."""
    return [
        CandidateCourse(
            SearchCandidate(f"r {rank}", Path("base"), Recipe(r=rank)),
            [tokens] if tokens else [],
            pace,
        )
        for rank, tokens in enumerate(lengths, 1)
    ]


def key_of(base: Path, recipe: Recipe) -> str:
    return f"r{recipe.r}"


def outcome(order: TrialOrder, loss: float, *, seconds: float = 0.0) -> TrialOutcome:
    """Return the outcome of a training whose validation answers all have the same loss."""
    step = order.entry.stops[order.rung] if order.at_step is None else order.at_step
    return TrialOutcome(
        key=order.entry.key,
        rung=order.rung,
        step=step,
        steps=order.entry.stops[-1],
        seconds=seconds,
        parameters=order.entry.recipe.r,
        validation_loss=loss,
        nats=dict.fromkeys(range(ROWS), loss),
        finished=order.at_step is None,
    )


def trainer(
    loss_of: Callable[[PlannedTrial], float],
    done: list[TrialOrder],
    broken: Sequence[tuple[str, int]] = (),
) -> Callable[[Sequence[TrialOrder]], list[TrialOutcome]]:
    """Return a fake that appends orders to ``done``; the ``broken`` candidates fail at a rung."""

    def train(orders: Sequence[TrialOrder]) -> list[TrialOutcome]:
        done.extend(orders)
        return [
            TrialOutcome(key=order.entry.key, rung=order.rung, trouble="diverged")
            if (order.entry.key, order.rung) in broken
            else outcome(order, loss_of(order.entry))
            for order in orders
        ]

    return train
