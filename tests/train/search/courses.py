"""Candidates with made-up lengths, and a training that only pretends: what it would measure."""

from collections.abc import Callable, Sequence
from pathlib import Path

from components.train.recipe import Recipe
from components.train.search.grid import Candidate
from components.train.search.plan import Course, Entry, Pace
from components.train.search.records import Order, Outcome
from components.train.search.settings import Search

ROWS = 40


def search(**budget: float) -> Search:
    return Search.model_validate({"over": {"r": [1, 2]}, "budget": budget})


def courses(lengths: Sequence[Sequence[int]], pace: Pace | None = None) -> list[Course]:
    """Give a course for each list of tokens by step; candidates differ in their seed's rank."""
    return [
        Course(Candidate(f"r {rank}", Path("base"), Recipe(r=rank)), tokens, pace)
        for rank, tokens in enumerate(lengths, 1)
    ]


def key_of(base: Path, recipe: Recipe) -> str:
    return f"r{recipe.r}"


def outcome(order: Order, loss: float, *, seconds: float = 0.0) -> Outcome:
    """Say what a training came to whose answers cost ``loss`` each, give or take nothing."""
    step = order.entry.stops[order.rung] if order.at_step is None else order.at_step
    return Outcome(
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
    loss_of: Callable[[Entry], float], done: list[Order], broken: Sequence[tuple[str, int]] = ()
) -> Callable[[Sequence[Order]], list[Outcome]]:
    """Give what carries orders out: it notes them in ``done``; some candidates fail at a rung."""

    def train(orders: Sequence[Order]) -> list[Outcome]:
        done.extend(orders)
        return [
            Outcome(key=one.entry.key, rung=one.rung, trouble="diverged")
            if (one.entry.key, one.rung) in broken
            else outcome(one, loss_of(one.entry))
            for one in orders
        ]

    return train
