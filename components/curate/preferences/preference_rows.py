"""Pairs and labels as training rows, redacted and matched by length, or refused with a reason."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias

from components.chat import prompt
from components.curate.preferences import outcomes
from components.curate.preferences.feedback_signals import answer_key
from components.curate.preferences.outcomes import PlacedInteraction
from components.curate.preferences.pairs_and_labels import Label, PreferencePair, Weighed
from components.curate.redaction import conversations, json_texts
from components.curate.redaction.redactor import Conversation
from components.curate.rules import language
from components.curate.split import Side
from components.schema import Answer, Json
from components.store import manifest

Message: TypeAlias = dict[str, Json]

Redact: TypeAlias = Callable[[str, Conversation], "tuple[Conversation, Conversation] | None"]
"""Redacts the request of an interaction with answers to it, equal values equally.

Returns it as stored and with placeholders; ``None`` if it can't be redacted.
"""


class FindObjection(Protocol):
    """Finds what keeps an answer from being learned; JSON texts; ``None`` if nothing does."""

    def __call__(
        self, messages: str, tools: str, message: str, *, is_corrected: bool
    ) -> str | None:
        """Apply the workload's rules."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A request as JSON text, and the answers to it.

    Answers are ``identical`` if they differ only in the spelling of personal data.
    """

    messages: str
    tools: str
    answers: tuple[Answer, ...]
    identical: bool


def message(answer: Answer) -> Message:
    """Return an answer as an assistant message."""
    calls: list[Json] = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.calls
    ]
    written: Message = {"role": "assistant", "content": answer.text}
    return {**written, "tool_calls": calls} if calls else written


def dump(answer: Answer) -> str:
    """Return an answer as JSON, its arguments in logged order: a model learns that order."""
    return json.dumps(asdict(answer), ensure_ascii=False)


Refusal = tuple[str, str | None]  # the fate of unusable feedback, and its detail


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """An interaction's request: messages and tools as JSON text, and its client."""

    interaction_id: str
    messages: str
    tools: str
    client_id: str


Requests = Mapping[str, LoggedRequest]  # requests by interaction id


@dataclass(frozen=True, slots=True)
class PairRow:
    """One row of ``curated.preferences``; lengths are of the rendered answers, in characters.

    A pair on the side ``train`` is learned, one on ``holdout`` is measured.
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
    """The rows; ``refused`` has the feedback ids without a row, and the reasons."""

    pairs: tuple[PairRow, ...]
    labels: tuple[LabelRow, ...]
    refused: dict[str, Refusal]


def write_rows(
    weighed: Weighed,
    placements: Mapping[str, PlacedInteraction],
    requests: Requests,
    redact: Redact,
    find_objection: FindObjection,
) -> PreferenceRows:
    """Return the usable pairs and labels: of requests without an objection on the train side.

    Pairs of the holdout are included, with that side. Chosen answers that nobody logged, which
    people wrote or an application showed them, must pass the rules as logged ones do.
    """
    refused: dict[str, Refusal] = {}
    pairs: list[PairRow] = []
    labels: list[LabelRow] = []
    for pair in weighed.pairs:
        answers = [weighed.answers.texts[key] for key in (pair.chosen, pair.rejected)]
        asked, refusal = outcomes.usable_interaction(pair.interaction_ids, placements)
        asked = asked or outcomes.usable_interaction(pair.interaction_ids, placements, "holdout")[0]
        is_corrected = pair.source == "correction"
        if asked is not None and (pair.example_id, pair.chosen) not in weighed.answers.interactions:
            objection = find_objection(
                requests[asked].messages,
                requests[asked].tools,
                json.dumps(message(answers[0])),
                is_corrected=is_corrected,
            )
            if objection is not None:
                asked, refusal = None, ("interaction_dropped", objection)
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
    written = (request.messages, request.tools, *map(dump, answers))
    if sum(map(len, written)) > conversations.MAX_CHARACTERS:
        return ("redaction_failed", None)
    redacted = redact(
        asked,
        Conversation(
            json.loads(request.messages),
            json.loads(request.tools),
            [message(answer) for answer in answers],
            is_corrected=is_corrected,
        ),
    )
    if redacted is None:
        return ("redaction_failed", None)
    stored, bare = redacted
    try:
        texts = json_texts.dumps(stored.messages), json_texts.dumps(stored.tools)
    except ValueError:  # a number that JSON can't represent, such as 1e999
        return ("redaction_failed", None)
    return Written(
        *texts,
        tuple(prompt.read_message(answer) for answer in stored.answers),
        len({answer_key(prompt.read_message(answer)) for answer in bare.answers}) == 1,
    )


def _pair_row(
    pair: PreferencePair, written: Written, placed: PlacedInteraction, request: LoggedRequest
) -> PairRow:
    chosen, rejected = written.answers
    messages: list[Message] = json.loads(written.messages)
    texts = [prompt.text_of(turn) for turn in messages if turn.get("role") == "user"]
    return PairRow(
        preference_id=manifest.digest([pair.example_id, pair.chosen, pair.rejected]),
        source=pair.source,
        side="holdout" if placed.side == "holdout" else "train",
        group_id=placed.group_id,
        cluster_id=placed.cluster_id,
        client_id=request.client_id,
        language=language.request_languages([texts])[0],
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
