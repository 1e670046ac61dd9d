"""A feedback signal, the meaning of its kind, and the answers it is about."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, cast

from components.chat import prompt
from components.schema import ANONYMOUS, Answer, Json
from components.store import manifest

Actor: TypeAlias = tuple[str, str]
"""Who gave a signal: the client and the actor's id there, empty for anonymous ones."""

Completion: TypeAlias = tuple[str, str]
"""An answer to a prompt in any number of interactions: example id and the answer's key."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One row of ``staging.signals``; ``value`` and ``scale`` are JSON text."""

    feedback_id: str
    client_id: str
    actor_id: str
    kind: str
    given_at: datetime
    stated_at: datetime
    value: str
    scale: str | None
    is_waiting: bool
    is_ambiguous: bool
    chosen_id: str | None
    rejected_id: str | None
    renewed_id: str | None
    interaction_ids: list[str]

    @property
    def actor(self) -> Actor:
        """The actor whose cap it counts against. The gateway names the client for nameless ones."""
        name = self.actor_id.strip()
        is_anonymous = name.lower() in ANONYMOUS or name == self.client_id
        return (self.client_id, "" if is_anonymous else name)

    @property
    def person(self) -> tuple[str, str]:
        """The person whose other signals it replaces; of nameless ones each is another's."""
        return self.actor if self.actor[1] else ("", self.feedback_id)

    @property
    def age_key(self) -> tuple[datetime, datetime]:
        """Sort key of time; ``given_at`` is the load's for all whose clocks are ahead of it."""
        return (self.given_at, self.stated_at)


@dataclass(frozen=True, slots=True)
class JudgedInteraction:
    """One row of ``staging.judged``; ``message`` is JSON text, ``None`` if not logged."""

    interaction_id: str
    example_id: str
    message: str | None


class Answers:
    """The distinct answers that signals are about, in canonical form.

    ``prompts`` are the interactions' example ids, ``texts`` the answers by their keys.
    """

    def __init__(self, judged: list[JudgedInteraction]) -> None:
        self._completions: dict[str, Completion] = {}
        self.prompts = {
            interaction.interaction_id: interaction.example_id for interaction in judged
        }
        self.texts: dict[str, Answer] = {}
        self.interactions: dict[Completion, list[str]] = {}
        for interaction in sorted(judged, key=lambda interaction: interaction.interaction_id):
            if (answer := read_answer(loads(interaction.message or "null"))) is not None:
                completion = (interaction.example_id, self.add(answer))
                self._completions[interaction.interaction_id] = completion
                self.interactions.setdefault(completion, []).append(interaction.interaction_id)

    def add(self, answer: Answer) -> str:
        """Add an answer and return its key, equal for equal answers."""
        key = answer_key(answer)
        self.texts[key] = answer
        return key

    def of(self, interaction_id: str | None) -> Completion | None:
        """Return an interaction's answer; ``None`` if it is unreadable or missing."""
        return self._completions.get(interaction_id or "")


def answer_key(answer: Answer) -> str:
    """Return the digest of an answer's content without surrounding white space."""
    return manifest.digest(Answer(answer.text.strip(), answer.calls).to_json())


def read_answer(message: Json) -> Answer | None:
    """Parse an assistant message; ``None`` if it is missing, empty or invalid."""
    if not isinstance(message, dict):
        return None
    try:
        answer = prompt.read_message(message)
        answer.to_json().encode()
    except (ValueError, RecursionError):
        return None
    return answer if answer.text.strip() or answer.calls else None


def loads(text: str) -> Json:
    """Parse JSON; invalid JSON counts as null."""
    try:
        return cast("Json", json.loads(text))
    except (ValueError, RecursionError):
        return None


NEUTRAL = 0.25  # an opinion nearer to the middle than this is neither good nor bad
REGENERATED = 0.25  # a regenerated answer may not have been bad: a quarter of a thumb down

GOOD = frozenset({"success", "succeeded", "solved", "resolved", "passed", "pass", "good", "yes"})
BAD = frozenset({"failure", "failed", "unsolved", "unresolved", "fail", "bad", "no"})
"""Values of an outcome in words."""

FAILURES = frozenset({"escalated", "abandoned", "error", "timeout", "refunded"})
"""Outcomes that mean failure when true; all others but ``HARMS`` mean success."""

HARMS = frozenset(
    {
        "bias",
        "controversiality",
        "criminality",
        "hallucination",
        "harmfulness",
        "insensitivity",
        "maliciousness",
        "misogyny",
        "noise_sensitivity",
        "toxicity",
    }
)
"""Evaluators' names (Langfuse's, DeepEval's, Ragas', LangChain's) for what should not be there."""


def opinion_position(kind: str, value: Json, scale: Json) -> float | None:
    """Return how good an answer was found, from -1 (worst) to 1 (best); ``None`` if unknown.

    ``scale`` is ``[lowest, highest]`` of a rating.
    """
    match kind, value, scale:
        case "thumb", "up" | "down", _:
            return 1.0 if value == "up" else -1.0
        case "rating", int() | float() as rating, [int() | float() as low, int() | float() as high]:
            return _rating_position(rating, low, high)
        case "regenerate", _, _:
            return -1.0
        case "outcome", {"name": str(name), "value": outcome}, _:
            position = _outcome_position(outcome)
            is_bad = name.strip().lower() in HARMS | FAILURES
            return -position if is_bad and position is not None else position
        case _:
            return None


def is_opinionated(position: float) -> bool:
    """Return whether an opinion is good or bad rather than neutral."""
    return abs(position) >= NEUTRAL


def _rating_position(rating: float, low: float, high: float) -> float | None:
    try:
        length = float(high) - float(low)
    except OverflowError:  # a whole number that no float can hold
        return None
    is_rating = 0 < length < math.inf and low <= rating <= high
    return 2 * (rating - low) / length - 1 if is_rating else None


def _outcome_position(outcome: Json) -> float | None:
    match outcome:
        case bool():
            return 1.0 if outcome else -1.0
        case int() | float() if 0 <= outcome <= 1:
            return 2 * outcome - 1
        case str() if outcome.strip().lower() in GOOD:
            return 1.0
        case str() if outcome.strip().lower() in BAD:
            return -1.0
        case _:
            return None


Source = Literal["choice", "correction", "regenerate", "rating"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer found good (``position`` up to 1) or bad (down to -1)."""

    completion: Completion
    position: float
    weight: float


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """One answer found better than another to the same prompt, or equally good."""

    better: Completion
    worse: Completion
    weight: float
    source: Source
    is_tie: bool = False


@dataclass(frozen=True, slots=True)
class SignalReading:
    """A parsed signal. ``fate`` is the reason why it has no meaning; the rest is then empty.

    ``replaces`` names the interactions whose answer it corrects, ``edited`` the new answer's key.
    """

    signal: Signal
    fate: str | None = None
    opinions: tuple[Opinion, ...] = ()
    comparisons: tuple[AnswerComparison, ...] = ()
    replaces: tuple[str, ...] = ()
    edited: str | None = None

    @property
    def weight(self) -> float:
        """Its weight against its actor's cap, at most 1: that of its strongest effect."""
        opinions = sum(opinion.weight for opinion in self.opinions)
        comparisons = (comparison.weight for comparison in self.comparisons)
        return max([opinions, float(bool(self.replaces)), *comparisons])


OutcomeName: TypeAlias = tuple[str, str]
"""A client, and the name of an outcome there."""


MAX_STRAY = 0.1
"""A larger share of numbers that are not from 0 to 1 is no mistake of a few, but another scale."""


def unscaled_outcomes(signals: Iterable[Signal]) -> set[OutcomeName]:
    """Return the outcomes whose numbers are not from 0 to 1: stars, seconds, prices.

    Of these 0 and 1 say nothing either: one star of five is the worst, and would be the best.
    """
    counts, stray = Counter[OutcomeName](), Counter[OutcomeName]()
    for signal in signals:
        if (outcome := _numeric_outcome(signal)) is not None:
            name, number = (signal.client_id, outcome[0]), outcome[1]
            counts[name] += 1
            stray[name] += number < 0 or number > 1
    return {name for name, count in counts.items() if stray[name] > MAX_STRAY * count}


def _numeric_outcome(signal: Signal) -> tuple[str, float] | None:
    if signal.kind != "outcome":
        return None
    match loads(signal.value):
        case {"value": bool()}:
            return None
        case {"name": str(name), "value": int() | float() as number}:
            return name.strip().lower(), number
        case _:
            return None


def read_signal(
    signal: Signal, answers: Answers, unscaled: AbstractSet[OutcomeName]
) -> SignalReading:
    """Parse one signal; its own answers are added to ``answers``."""
    if signal.is_waiting:
        return SignalReading(signal, "waiting")
    outcome = _numeric_outcome(signal)
    if outcome is not None and (signal.client_id, outcome[0]) in unscaled:
        return SignalReading(signal, "says_nothing")
    if signal.is_ambiguous:
        return SignalReading(signal, "different_prompts")
    match signal.kind:
        case "choice":
            return _choice(signal, answers)
        case "correction":
            return _correction(signal, answers)
        case _:
            return _opinion(signal, answers)


def _opinion(signal: Signal, answers: Answers) -> SignalReading:
    # One opinion is spread over all its answers: it counts once in total.
    value, scale = loads(signal.value), loads(signal.scale or "null")
    position = opinion_position(signal.kind, value, scale)
    if position is None or not (signal.kind == "rating" or is_opinionated(position)):
        return SignalReading(signal, "says_nothing")
    about = _distinct(answers.of(interaction_id) for interaction_id in signal.interaction_ids)
    if not about:
        return SignalReading(signal, "unreadable_answer")
    weight = REGENERATED if signal.kind == "regenerate" else max(NEUTRAL, abs(position))
    opinions = tuple(Opinion(completion, position, weight / len(about)) for completion in about)
    return SignalReading(signal, None, opinions, _renewed(signal, answers, about))


def _renewed(
    signal: Signal, answers: Answers, about: list[Completion]
) -> tuple[AnswerComparison, ...]:
    """Compare a regenerated answer with the replaced one, if the new one has arrived."""
    new = answers.of(signal.renewed_id)
    if new is None or len(about) != 1 or new == about[0] or new[0] != about[0][0]:
        return ()
    return (AnswerComparison(new, about[0], REGENERATED, "regenerate"),)


def _correction(signal: Signal, answers: Answers) -> SignalReading:
    answer = read_answer(loads(signal.value))
    if answer is None:
        return SignalReading(signal, "unreadable_answer")
    edited = answers.add(answer)
    about = _distinct(answers.of(interaction_id) for interaction_id in signal.interaction_ids)
    pairs = [
        AnswerComparison((example, edited), (example, logged), 1.0, "correction")
        for example, logged in about
        if logged != edited
    ]
    return SignalReading(signal, None, (), tuple(pairs), tuple(signal.interaction_ids), edited)


def _choice(signal: Signal, answers: Answers) -> SignalReading:
    match loads(signal.value):
        case {"chosen": chosen, "rejected": rejected, **others}:
            is_tie = others.get("tie") is True
        case _:
            return SignalReading(signal, "unreadable_answer")
    if isinstance(chosen, str) and None in (signal.chosen_id, signal.rejected_id):
        return SignalReading(signal, "waiting")
    prompts = {answers.prompts[interaction_id] for interaction_id in signal.interaction_ids}
    better = _side(chosen, signal.chosen_id, prompts, answers)
    worse = _side(rejected, signal.rejected_id, prompts, answers)
    if better is None or worse is None:
        return SignalReading(signal, "unreadable_answer")
    if better[0] != worse[0] or better[0] == "":
        return SignalReading(signal, "different_prompts")
    if better == worse:
        return SignalReading(signal, "identical")
    return SignalReading(
        signal, None, (), (AnswerComparison(better, worse, 1.0, "choice", is_tie),)
    )


def _side(
    choice: Json, interaction_id: str | None, prompts: set[str], answers: Answers
) -> Completion | None:
    """Return one of a choice's two answers; a message answers the prompt of the interactions."""
    if interaction_id is not None:
        return answers.of(interaction_id)
    answer = read_answer(choice)
    if answer is None:
        return None
    return (next(iter(prompts)) if len(prompts) == 1 else "", answers.add(answer))


def _distinct(completions: Iterable[Completion | None]) -> list[Completion]:
    return sorted({completion for completion in completions if completion is not None})
