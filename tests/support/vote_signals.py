"""Signals and the answers that they are about, as curation stages them, for tests to vary."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from components.curate.preferences import weigh
from components.curate.preferences.feedback_signals import JudgedInteraction, Signal
from components.curate.preferences.pairs_and_labels import Weighed
from components.curate.settings import Preferences
from components.schema import Json

START = datetime(2026, 1, 1, tzinfo=UTC)


def say(text: str) -> Json:
    return {"role": "assistant", "content": text}


def answer(
    interaction_id: str, text: str | None = None, prompt: str = "prompt"
) -> JudgedInteraction:
    """Log an answer; its text is the interaction's id unless said otherwise."""
    said = json.dumps(say(interaction_id if text is None else text))
    return JudgedInteraction(interaction_id, prompt, said)


def signal(
    kind: str = "thumb",
    value: Json = "up",
    *,
    about: Sequence[str] = ("a",),
    actor: str = "ann",
    scale: Json = None,
    minutes: float = 0,
    named: tuple[str | None, str | None, str | None] = (None, None, None),
    feedback_id: str | None = None,
    is_waiting: bool = False,
    is_ambiguous: bool = False,
) -> Signal:
    """Give a signal; ``named`` are the interactions chosen, rejected, and regenerated to."""
    chosen, rejected, renewed = named
    content = json.dumps([kind, value, about, actor, minutes, named])
    return Signal(
        feedback_id=feedback_id or content,
        client_id="app",
        actor_id=actor,
        kind=kind,
        given_at=START + timedelta(minutes=minutes),
        stated_at=START + timedelta(minutes=minutes),
        value=json.dumps(value),
        scale=None if scale is None else json.dumps(scale),
        is_waiting=is_waiting,
        is_ambiguous=is_ambiguous,
        chosen_id=chosen,
        rejected_id=rejected,
        renewed_id=renewed,
        interaction_ids=list(about),
    )


def choose(chosen: str, rejected: str, *, tie: bool = False, **others: object) -> Signal:
    """Choose between two logged answers."""
    value: dict[str, Json] = {"chosen": chosen, "rejected": rejected}
    named = (chosen, rejected, None)
    return signal(
        "choice",
        value | ({"tie": True} if tie else {}),
        about=[chosen],
        named=named,
        **others,  # pyright: ignore
    )


def rate(value: float, **others: object) -> Signal:
    """Rate an answer from 1 to 5."""
    return signal("rating", value, scale=[1, 5], **others)  # pyright: ignore


def correct(text: str, **others: object) -> Signal:
    """Say what should have been the answer."""
    return signal("correction", say(text), **others)  # pyright: ignore


def weigh_feedback(
    signals: Iterable[Signal], answers: Iterable[JudgedInteraction] | None = None, **config: object
) -> Weighed:
    """Weigh signals about answers ``a``, ``b`` and ``c`` to one prompt, unless others are given."""
    given = [answer(one) for one in "abc"] if answers is None else list(answers)
    return weigh.weigh_signals(signals, given, Preferences(**config))  # pyright: ignore


def pairs(weighed: Weighed) -> list[tuple[str, str, str, float]]:
    """Give the pairs as texts: chosen, rejected, source, weight."""
    texts = weighed.answers.texts
    return sorted(
        (texts[one.chosen].text, texts[one.rejected].text, one.source, round(one.weight, 3))
        for one in weighed.pairs
    )


def labels(weighed: Weighed) -> list[tuple[str, bool, float]]:
    """Give the labels as texts: the answer, whether it is good, weight."""
    texts = weighed.answers.texts
    return sorted(
        (texts[one.answer].text, one.is_good, round(one.weight, 3)) for one in weighed.labels
    )
