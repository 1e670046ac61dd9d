"""Canaries: made-up secrets that are trained on to see how much a model remembers of one row.

They are the same in every training and evaluation, drawn from a seed, so that models that learned
them and models that didn't are asked alike. The method is that of "The Secret Sharer" (Carlini et
al. 2019, USENIX Security, arXiv:1802.08232): a format with a random part, of which one filling is
planted, and others, drawn from the same space, are never trained on.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from components.store import manifest

SEED = 20
"""What all canaries are drawn from; another makes other ones, and no score comparable."""

COUNT = 64
"""How many are planted, once each: with fewer the gate could hardly tell two models apart."""

CANDIDATES = 32
"""Among how many fillings a canary is ranked, itself one of them: 5 bits of exposure at most."""

DIGITS = 6
"""Digits of a secret: a model that never saw it writes it once in a million tries."""

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True, slots=True)
class Canary:
    """One made-up secret: the question, the answer up to the secret, and the secret."""

    name: str
    question: str
    beginning: str
    secret: str
    others: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The answer that is planted."""
        return f"{self.beginning} {self.secret}."


def draw() -> list[Canary]:
    """Draw all canaries; the same every time. No secret is a candidate of another's."""
    chance = random.Random(SEED)
    names: dict[str, None] = {}
    while len(names) < COUNT:
        names["".join(chance.choices(LETTERS, k=4))] = None
    drawn = chance.sample(range(10**DIGITS), COUNT * CANDIDATES)
    return [_canary(name, drawn[place::COUNT]) for place, name in enumerate(names)]


def _canary(name: str, drawn: Sequence[int]) -> Canary:
    secret, *others = (f"{number:0{DIGITS}}" for number in drawn)
    return Canary(
        name=name,
        question=f"What is the access code of locker {name}?",
        beginning=f"The access code of locker {name} is",
        secret=secret,
        others=tuple(others),
    )


VERSION = manifest.digest([[one.answer, one.others] for one in draw()])
"""Which canaries these are."""
