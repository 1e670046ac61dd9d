"""Judge each interaction by itself: read it, let the rules object, redact it."""

from collections.abc import Iterable, Iterator
from functools import partial

from components.curate import candidate as candidates
from components.curate import crew, origin, split
from components.curate.candidate import Candidate, MalformedError, Row
from components.curate.judgement import Judgement
from components.curate.near import requests
from components.curate.placing import Member
from components.curate.redaction import of_candidate
from components.curate.redaction.of_candidate import RedactionFailedError
from components.curate.rules import language, screen
from components.curate.rules.screen import Screened
from components.curate.settings import Rules


def judge_all(rows: Iterable[Row], rules: Rules) -> Iterator[Judgement]:
    """Judge the interactions in their order, many of them in several processes."""
    return crew.spread(partial(_judge_batch, rules=rules), rows)


def _judge_batch(rows: list[Row], rules: Rules) -> list[Judgement]:
    return [judge(row, rules) for row in rows]


def judge(row: Row, rules: Rules) -> Judgement:
    """Judge one interaction by itself; pure."""
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
        redacted, rewritten = of_candidate.redact(candidate, rules.redaction)
    except RedactionFailedError:
        return Judgement(candidate.interaction_id, "redaction_failed", screened)
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
