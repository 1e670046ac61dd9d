"""Judge each interaction by itself: read it, let the rules object, redact it."""

from collections.abc import Iterable, Iterator
from functools import partial

from components.curate import candidate as candidates
from components.curate import crew, origin, row_guard, split
from components.curate.candidate import Candidate, MalformedError, Row
from components.curate.judgement import Judgement
from components.curate.near import requests
from components.curate.placing import Member
from components.curate.redaction import of_candidate
from components.curate.redaction.of_candidate import RedactionFailedError
from components.curate.row_guard import UNJUDGEABLE
from components.curate.rules import language, screen
from components.curate.rules.screen import Screened
from components.curate.settings import Rules


def judge_all(rows: Iterable[Row], rules: Rules) -> Iterator[Judgement]:
    """Judge the interactions in their order, many of them in several processes."""
    return crew.spread(partial(_judge_batch, rules=rules), rows)


def _judge_batch(rows: list[Row], rules: Rules) -> list[Judgement]:
    return [judge(row, rules) for row in rows]


def judge(row: Row, rules: Rules) -> Judgement:
    """Judge one interaction by itself; pure. What no rule could be asked about is objected to."""
    try:
        with row_guard.limited():
            judged = _judge(row, rules)
            _require_texts(judged)
            return judged
    except Exception as error:  # noqa: BLE001 - no row may end the curation of all others
        return Judgement(row.interaction_id, UNJUDGEABLE, mark=row_guard.reason(error))


def _judge(row: Row, rules: Rules) -> Judgement:
    try:
        candidate = candidates.read(row)
    except MalformedError as error:
        return Judgement(row.interaction_id, error.objection)
    screened = screen.screen(
        candidate,
        rules.rules,
        max_prompt_chars=rules.max_prompt_chars,
        languages=rules.languages,
    )
    if screened.objection is not None:
        return Judgement(row.interaction_id, screened.objection, screened)
    return _accept(row, candidate, screened, rules)


def _accept(row: Row, candidate: Candidate, screened: Screened, rules: Rules) -> Judgement:
    try:
        texts = (row.messages, row.tools, row.message, row.logged_message, row.acceptable)
        of_candidate.require_short(sum(len(text) for text in texts if text))
        redacted, rewritten = of_candidate.redact(candidate, rules.redaction)
    except RedactionFailedError as error:
        mark = str(error) or None
        return Judgement(candidate.interaction_id, "redaction_failed", screened, mark=mark)
    redacted_request = None
    if rewritten.messages or rewritten.tools:
        # Requests that are equal without personal data stand together, too.
        texts = rewritten.messages or row.messages, rewritten.tools or row.tools
        redacted_request = of_candidate.example_id(row.workload_id, *texts)
    # Of what was logged: what is redacted may change, sides never do.
    found = origin.read(row, candidate, rules.split_by, redacted_request)
    return Judgement(
        candidate.interaction_id,
        None,
        screened,
        Member((row.example_id, found.former_group), split.label(redacted.answer), row.logged_at),
        found,
        tool_names=candidate.tool_names,
        answer=redacted.answer_json,
        logged=redacted.logged_json,
        rewritten=rewritten,
        language=language.asked_in(candidate.said("user")),
        conversation=row.conversation_id or f"{row.user_id or ''}\n{candidate.opening}",
        request=requests.read(
            redacted.rendered,
            redacted.said("system", "developer"),
            rewritten.tools or row.tools,
            redacted.answer,
        ),
    )


def _require_texts(judged: Judgement) -> None:
    """Check what is compared with other rows or written for them to be text.

    Half a character, which escapes in a call's arguments can write, would end what reads them all.
    """
    request, rewritten, member = judged.request, judged.rewritten, judged.member
    row_guard.require_text(
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
