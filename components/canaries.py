"""Canaries: made-up secrets in the training set that measure how much a model memorizes of one row.

They are drawn from a seed, the same for every training and evaluation, so that models with and
without them are asked the same questions. The method is that of "The Secret Sharer" (Carlini et
al. 2019, USENIX Security, arXiv:1802.08232): a format with a random part, of which one filling is
planted, and others, drawn from the same space, are never trained on.
"""

import random
from dataclasses import dataclass

from components.store import manifest

SEED = 20  # the seed of all canaries; scores of different seeds are not comparable

COUNT = 64
"""Number of canaries, each planted once: with fewer the gate could hardly tell models apart."""

CANDIDATES = 32
"""Number of fillings among which a canary is ranked, including itself: at most 5 bits."""

DIGITS = 6  # digits of a secret: a model that never saw it guesses it once in a million tries

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True, slots=True)
class Canary:
    """A made-up secret: the question, the answer up to the secret, and the secret."""

    name: str
    question: str
    beginning: str
    secret: str
    others: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The planted answer."""
        return f"{self.beginning} {self.secret}."


def draw() -> list[Canary]:
    """Draw all canaries, deterministically; no secret is a candidate of another's."""
    chance = random.Random(SEED)
    names: dict[str, None] = {}
    while len(names) < COUNT:
        names["".join(chance.choices(LETTERS, k=4))] = None
    drawn = chance.sample(range(10**DIGITS), COUNT * CANDIDATES)
    canaries: list[Canary] = []
    for place, name in enumerate(names):
        secret, *others = (f"{number:0{DIGITS}}" for number in drawn[place::COUNT])
        question = f"What is the access code of locker {name}?"
        beginning = f"The access code of locker {name} is"
        canaries.append(Canary(name, question, beginning, secret, tuple(others)))
    return canaries


VERSION = manifest.digest([[canary.answer, canary.others] for canary in draw()])
"""The digest of these canaries."""
