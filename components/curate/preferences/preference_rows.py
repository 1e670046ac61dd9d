"""Pairs and labels as training rows: redacted, matched by length, or refused with a reason."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias, cast

from components.chat import prompt
from components.curate.preferences import outcomes
from components.curate.preferences.feedback_signals import answer_key
from components.curate.preferences.outcomes import PlacedInteraction
from components.curate.preferences.pairs_and_labels import Label, PreferencePair, Weighed
from components.curate.rules import language
from components.curate.settings import Preferences
from components.curate.split import Side
from components.schema import Answer, Json
from components.store import manifest


def match_lengths(weights: Sequence[float], lengths: Sequence[tuple[int, int]]) -> list[float]:
    """Scale the heavier of the two kinds down, so that both weigh the same in all.

    No pair is dropped and none becomes heavier. With one kind only there is nothing to match.
    """
    longer = sum(
        w for w, (chosen, rejected) in zip(weights, lengths, strict=True) if chosen > rejected
    )
    shorter = sum(
        w for w, (chosen, rejected) in zip(weights, lengths, strict=True) if chosen < rejected
    )
    if not longer or not shorter:
        return list(weights)
    lighter = min(longer, shorter)
    return [
        w
        * (lighter / longer if chosen > rejected else lighter / shorter if chosen < rejected else 1)
        for w, (chosen, rejected) in zip(weights, lengths, strict=True)
    ]


Message: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Exchange:
    """The request of an interaction and answers to it, as OpenAI has them.

    If it ``is_corrected``, the first answer is a person's correction.
    """

    interaction_id: str
    messages: list[Message]
    tools: list[Message]
    answers: list[Message]
    is_corrected: bool = False


@dataclass(frozen=True, slots=True)
class RedactedExchange:
    """An exchange without personal data, as it is stored and with placeholders."""

    stored: Exchange
    placeholders: Exchange


Redact: TypeAlias = Callable[[Exchange], RedactedExchange | None]
"""Take out of an exchange what is personal, the same for the same; ``None`` if that fails."""


@dataclass(frozen=True, slots=True)
class Written:
    """A request as JSON text, and the answers to it.

    They are ``identical`` if they differ in no more than how personal data is written.
    """

    messages: str
    tools: str
    answers: tuple[Answer, ...]
    identical: bool


def write_exchange(exchange: Exchange, redact: Redact) -> Written | None:
    """Redact a request with the answers to it, so that a value is the same in all of them."""
    found = redact(exchange)
    if found is None:
        return None
    read = tuple(prompt.read_message(one) for one in found.stored.answers)
    bare = [prompt.read_message(one) for one in found.placeholders.answers]
    stored = found.stored
    return Written(dumps(stored.messages), dumps(stored.tools), read, _are_equal(bare))


def make_exchange(
    interaction_id: str,
    messages: str,
    tools: str,
    answers: Sequence[Answer],
    *,
    is_corrected: bool = False,
) -> Exchange:
    """Read a request from JSON text, with answers to it."""
    return Exchange(
        interaction_id,
        cast("list[Message]", json.loads(messages)),
        cast("list[Message]", json.loads(tools)),
        [message(one) for one in answers],
        is_corrected,
    )


def said_by_users(messages: str) -> list[str]:
    """Give what users said in a request, in its order."""
    return [prompt.text_of(one) for one in json.loads(messages) if one.get("role") == "user"]


def message(answer: Answer) -> Message:
    """Give an answer as an assistant message."""
    calls: list[Json] = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.calls
    ]
    said: Message = {"role": "assistant", "content": answer.text}
    return {**said, "tool_calls": calls} if calls else said


def _are_equal(answers: Sequence[Answer]) -> bool:
    """Tell whether answers have become one."""
    return len({answer_key(one) for one in answers}) == 1


def dump(answer: Answer) -> str:
    """Write an answer as JSON, its arguments in the order given: a model learns that order."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def dumps(value: Sequence[Message]) -> str:
    """Write JSON compactly; half a character, which only an escape can write, is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


Refusal = tuple[str, str | None]
"""The fate of feedback that can't be used, and what more there is to say."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """What an interaction asked: messages and tools, JSON text, and who sent it."""

    messages: str
    tools: str
    client_id: str


Requests = Mapping[str, LoggedRequest]
"""By interaction."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """One row of ``curated.preferences``; lengths are of the rendered answers, in characters.

    On the side ``train`` a pair is learned, on ``holdout`` it is measured on.
    """

    preference_id: str
    source: str
    side: Side
    group_id: str | None
    cluster_id: str | None
    client_id: str
    language: str | None
    messages: str
    tools: str
    chosen: str
    rejected: str
    weight: float
    chosen_length: int
    rejected_length: int
    interaction_ids: tuple[str, ...]
    feedback_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of ``curated.labels``."""

    label_id: str
    messages: str
    tools: str
    answer: str
    is_good: bool
    weight: float
    interaction_ids: tuple[str, ...]
    feedback_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreferenceRows:
    """What is written; ``refused`` gives the feedback whose pair or label is not, and why."""

    pairs: tuple[PairRow, ...]
    labels: tuple[LabelRow, ...]
    refused: dict[str, Refusal]


def write_rows(
    weighed: Weighed,
    placements: Mapping[str, PlacedInteraction],
    requests: Requests,
    config: Preferences,
    redact: Redact,
) -> PreferenceRows:
    """Write what may be used: the request has no verdict against it, and is on the train side.

    Pairs of the holdout are written as well, as such.
    """
    refused: dict[str, Refusal] = {}
    pairs: list[PairRow] = []
    labels: list[LabelRow] = []
    for pair in weighed.pairs:
        answers = [weighed.answers.texts[key] for key in (pair.chosen, pair.rejected)]
        asked, refusal = outcomes.usable_interaction(pair.interaction_ids, placements)
        asked = asked or outcomes.usable_interaction(pair.interaction_ids, placements, "holdout")[0]
        is_corrected = pair.source == "correction"
        match _written(asked, refusal, answers, requests, redact, is_corrected=is_corrected):
            case Written() as written if written.identical:
                refused |= dict.fromkeys(pair.feedback_ids, ("identical", "after redaction"))
            case Written() as written:
                assert asked is not None
                pairs.append(_pair_row(pair, written, placements[asked], requests[asked]))
            case refusal:
                refused |= dict.fromkeys(pair.feedback_ids, refusal)
    for label in weighed.labels:
        answers = [weighed.answers.texts[label.answer]]
        asked, refusal = outcomes.usable_interaction(label.interaction_ids, placements)
        match _written(asked, refusal, answers, requests, redact):
            case Written() as written:
                labels.append(_label_row(label, written))
            case refusal:
                refused |= dict.fromkeys(label.feedback_ids, refusal)
    if config.match_length:
        pairs = _matched(pairs)
    pairs.sort(key=lambda row: row.preference_id)
    labels.sort(key=lambda row: row.label_id)
    return PreferenceRows(tuple(pairs), tuple(labels), refused)


def _written(
    asked: str | None,
    refusal: Refusal,
    answers: Sequence[Answer],
    requests: Requests,
    redact: Redact,
    *,
    is_corrected: bool = False,
) -> Written | Refusal:
    if asked is None:
        return refusal
    request = requests[asked]
    exchange = make_exchange(
        asked, request.messages, request.tools, answers, is_corrected=is_corrected
    )
    written = write_exchange(exchange, redact)
    return written or ("redaction_failed", None)


def _pair_row(
    pair: PreferencePair, written: Written, placed: PlacedInteraction, request: LoggedRequest
) -> PairRow:
    chosen, rejected = written.answers
    return PairRow(
        preference_id=manifest.digest([pair.example_id, pair.chosen, pair.rejected]),
        source=pair.source,
        side="holdout" if placed.side == "holdout" else "train",
        group_id=placed.group_id,
        cluster_id=placed.cluster_id,
        client_id=request.client_id,
        language=language.asked_in(said_by_users(written.messages)),
        messages=written.messages,
        tools=written.tools,
        chosen=dump(chosen),
        rejected=dump(rejected),
        weight=pair.weight,
        chosen_length=len(prompt.render_answer(chosen)),
        rejected_length=len(prompt.render_answer(rejected)),
        interaction_ids=pair.interaction_ids,
        feedback_ids=pair.feedback_ids,
    )


def _label_row(label: Label, written: Written) -> LabelRow:
    (answer,) = written.answers
    return LabelRow(
        label_id=manifest.digest([label.example_id, label.answer]),
        messages=written.messages,
        tools=written.tools,
        answer=dump(answer),
        is_good=label.is_good,
        weight=label.weight,
        interaction_ids=label.interaction_ids,
        feedback_ids=label.feedback_ids,
    )


def _matched(pairs: Sequence[PairRow]) -> list[PairRow]:
    learned = [row for row in pairs if row.side == "train"]
    lengths = [(row.chosen_length, row.rejected_length) for row in learned]
    weights = match_lengths([row.weight for row in learned], lengths)
    matched = [replace(row, weight=one) for row, one in zip(learned, weights, strict=True)]
    return [*matched, *(row for row in pairs if row.side != "train")]
