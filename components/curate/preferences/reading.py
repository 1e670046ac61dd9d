"""Read a signal: what it says about which answers, or why it says nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from components.curate.preferences import meaning
from components.curate.preferences.settings import Preferences
from components.curate.preferences.signal import Answers, Completion, Signal, loads, read_answer
from components.schema import Json

Source = Literal["choice", "correction", "regenerate", "rating"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer found good (``position`` up to 1) or bad (down to -1)."""

    completion: Completion
    position: float
    weight: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One answer found better than another to the same prompt, or as good as it."""

    better: Completion
    worse: Completion
    weight: float
    source: Source
    is_tie: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What a signal says. ``fate`` is why it says nothing; then there is nothing else.

    ``replaces`` names the interactions whose answer it corrects, ``edited`` the new answer's key.
    """

    signal: Signal
    fate: str | None = None
    opinions: tuple[Opinion, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    replaces: tuple[str, ...] = ()
    edited: str | None = None

    @property
    def weight(self) -> float:
        """What it counts against its actor's cap: the most that it moves, at most 1."""
        said = sum(one.weight for one in self.opinions)
        return max([said, float(bool(self.replaces)), *(one.weight for one in self.comparisons)])


def read(signal: Signal, answers: Answers, config: Preferences) -> Reading:
    """Read one signal; answers that it brings are added to ``answers``."""
    if signal.is_waiting:
        return Reading(signal, "waiting")
    match signal.kind:
        case "choice":
            return _choice(signal, answers)
        case "correction":
            return _correction(signal, answers)
        case _:
            return _opinion(signal, answers, config)


def _opinion(signal: Signal, answers: Answers, config: Preferences) -> Reading:
    """Spread one opinion over all answers that it is about: it counts once, not once for each."""
    value, scale = loads(signal.value), loads(signal.scale or "null")
    position = meaning.opinion(signal.kind, value, scale, config.bad_outcomes)
    if position is None or not (signal.kind == "rating" or meaning.is_said(position)):
        return Reading(signal, "says_nothing")
    about = _distinct(answers.of(one) for one in signal.interaction_ids)
    if not about:
        return Reading(signal, "unreadable_answer")
    weight = meaning.weight(signal.kind, position) / len(about)
    opinions = tuple(Opinion(completion, position, weight) for completion in about)
    return Reading(signal, None, opinions, _renewed(signal, answers, about))


def _renewed(signal: Signal, answers: Answers, about: list[Completion]) -> tuple[Comparison, ...]:
    """Compare a regenerated answer with the one that it replaced, where that has arrived."""
    new = answers.of(signal.renewed_id)
    if new is None or len(about) != 1 or new == about[0] or new[0] != about[0][0]:
        return ()
    return (Comparison(new, about[0], meaning.REGENERATED, "regenerate"),)


def _correction(signal: Signal, answers: Answers) -> Reading:
    answer = read_answer(loads(signal.value))
    if answer is None:
        return Reading(signal, "unreadable_answer")
    edited = answers.add(answer)
    about = _distinct(answers.of(one) for one in signal.interaction_ids)
    pairs = [
        Comparison((example, edited), (example, logged), 1.0, "correction")
        for example, logged in about
        if logged != edited
    ]
    return Reading(signal, None, (), tuple(pairs), tuple(signal.interaction_ids), edited)


def _choice(signal: Signal, answers: Answers) -> Reading:
    match loads(signal.value):
        case {"chosen": chosen, "rejected": rejected, **others}:
            is_tie = others.get("tie") is True
        case _:
            return Reading(signal, "unreadable_answer")
    if isinstance(chosen, str) and None in (signal.chosen_id, signal.rejected_id):
        return Reading(signal, "waiting")
    prompts = {answers.prompt(one) for one in signal.interaction_ids}
    better = _side(chosen, signal.chosen_id, prompts, answers)
    worse = _side(rejected, signal.rejected_id, prompts, answers)
    if better is None or worse is None:
        return Reading(signal, "unreadable_answer")
    if better[0] != worse[0] or better[0] == "":
        return Reading(signal, "different_prompts")
    if better == worse:
        return Reading(signal, "identical")
    return Reading(signal, None, (), (Comparison(better, worse, 1.0, "choice", is_tie),))


def _side(
    said: Json, interaction_id: str | None, prompts: set[str], answers: Answers
) -> Completion | None:
    """Find one of the two answers of a choice; a message is to the prompt of what it is about."""
    if interaction_id is not None:
        return answers.of(interaction_id)
    answer = read_answer(said)
    if answer is None:
        return None
    return (next(iter(prompts)) if len(prompts) == 1 else "", answers.add(answer))


def _distinct(found: Iterable[Completion | None]) -> list[Completion]:
    return sorted({one for one in found if one is not None})
