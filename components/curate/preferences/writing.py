"""Write pairs and labels as rows, redacted, and say of the others why they can't be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from components import manifest, prompt
from components.curate.preferences import fates, length, texts
from components.curate.preferences.fates import Placement
from components.curate.preferences.records import Label, Pair, Weighed
from components.curate.preferences.settings import Preferences
from components.curate.preferences.texts import Redact, Written
from components.curate.rules import language
from components.curate.split import Side
from components.schema import Answer

Refusal = tuple[str, str | None]
"""The fate of feedback that can't be used, and what more there is to say."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an interaction asked: messages and tools, JSON text, and who sent it."""

    messages: str
    tools: str
    client_id: str


Requests = Mapping[str, Request]
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
class Rows:
    """What is written; ``refused`` gives the feedback whose pair or label is not, and why."""

    pairs: tuple[PairRow, ...]
    labels: tuple[LabelRow, ...]
    refused: dict[str, Refusal]


def write(
    weighed: Weighed,
    placements: Mapping[str, Placement],
    requests: Requests,
    config: Preferences,
    redact: Redact,
) -> Rows:
    """Write what may be used: the request has no verdict against it, and is on the train side.

    Pairs of the holdout are written as well, as such.
    """
    refused: dict[str, Refusal] = {}
    pairs: list[PairRow] = []
    labels: list[LabelRow] = []
    for pair in weighed.pairs:
        answers = [weighed.answers.texts[key] for key in (pair.chosen, pair.rejected)]
        asked, refusal = fates.usable(pair.interaction_ids, placements)
        asked = asked or fates.usable(pair.interaction_ids, placements, "holdout")[0]
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
        asked, refusal = fates.usable(label.interaction_ids, placements)
        match _written(asked, refusal, answers, requests, redact):
            case Written() as written:
                labels.append(_label_row(label, written))
            case refusal:
                refused |= dict.fromkeys(label.feedback_ids, refusal)
    if config.match_length:
        pairs = _matched(pairs)
    pairs.sort(key=lambda row: row.preference_id)
    labels.sort(key=lambda row: row.label_id)
    return Rows(tuple(pairs), tuple(labels), refused)


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
    exchange = texts.exchange(
        asked, request.messages, request.tools, answers, is_corrected=is_corrected
    )
    written = texts.write(exchange, redact)
    return written or ("redaction_failed", None)


def _pair_row(pair: Pair, written: Written, placed: Placement, request: Request) -> PairRow:
    chosen, rejected = written.answers
    return PairRow(
        preference_id=manifest.digest([pair.example_id, pair.chosen, pair.rejected]),
        source=pair.source,
        side="holdout" if placed.side == "holdout" else "train",
        group_id=placed.group_id,
        cluster_id=placed.cluster_id,
        client_id=request.client_id,
        language=language.asked_in(texts.said_by_users(written.messages)),
        messages=written.messages,
        tools=written.tools,
        chosen=texts.dump(chosen),
        rejected=texts.dump(rejected),
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
        answer=texts.dump(answer),
        is_good=label.is_good,
        weight=label.weight,
        interaction_ids=label.interaction_ids,
        feedback_ids=label.feedback_ids,
    )


def _matched(pairs: Sequence[PairRow]) -> list[PairRow]:
    learned = [row for row in pairs if row.side == "train"]
    lengths = [(row.chosen_length, row.rejected_length) for row in learned]
    weights = length.match([row.weight for row in learned], lengths)
    matched = [replace(row, weight=one) for row, one in zip(learned, weights, strict=True)]
    return [*matched, *(row for row in pairs if row.side != "train")]
