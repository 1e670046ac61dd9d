"""Find answers that are an error of the machinery."""

import json
import re

from components.curate.candidate import Candidate

LONGEST = 2_000
"""Characters of an answer that can be nothing but a short error; a stack trace may be longer."""

_TRACE = re.compile(
    r"""
    (?:```\w*\s*)?
    (?: Traceback\ \(most\ recent\ call\ last\):
      | Exception\ in\ thread\ "
      | (?:Unhandled|Uncaught)\ (?:exception|error|rejection)\b
      | [\w.$]+(?:Error|Exception):\ [^\n]*\n\s+at\ [\w.$<>]+
      | panic:\ [^\n]*\n\s*goroutine\ \d+
      | thread\ '[^']*'\ panicked\ at )
    """,
    re.VERBOSE,
)
_ERROR = re.compile(
    r"""
    (?:<!doctype\ html>\s*|<html>\s*|<head>\s*|<title>\s*)*
    (?:(?:http|api|server|error|status|status\ code|error\ code)[:\s]*)*
    (?: (?:[45]\d\d[\s:-]*)?
        (?: internal\ server\ error | bad\ gateway | service\ (?:temporarily\ )?unavailable
          | gateway\ time-?out | too\ many\ requests | upstream\ (?:connect\ error|request\ timeout)
          | request\ timed\ out | connection\ (?:refused|reset\ by\ peer|error)\b )
      | [45]\d\d\s*-\s*\{
      | rate\ limit\ (?:reached|exceeded) | (?:the\ )?server\ (?:had\ an\ error|is\ overloaded)
      | this\ model['\u2019]s\ maximum\ context\ length
      | (?:openai|anthropic|litellm|httpx|requests)[\w.]*(?:Error|Exception|Timeout)\b
      | \w*(?:RateLimit|APIConnection|APIStatus|APITimeout|Timeout|InternalServer)Error\b )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def error_text(candidate: Candidate) -> str | None:
    """Find stack traces, status lines and error replies of providers in the place of an answer.

    Only where they begin the answer: one that explains an error says something first.
    """
    text = candidate.answer.text.strip()
    if not text or candidate.answer.calls or candidate.is_corrected:
        return None
    if _TRACE.match(text):
        return "stack trace"
    if len(text) > LONGEST:
        return None
    if _ERROR.match(text):
        return "error message"
    return "error reply" if text.startswith("{") and _is_error_reply(text) else None


def _is_error_reply(text: str) -> bool:
    """Tell whether a JSON text is what OpenAI's, Anthropic's or vLLM's interface says of errors."""
    try:
        match json.loads(text):
            case {"error": {"message": str(), **fields}}:
                return bool(fields.keys() & {"type", "code", "param", "status"})
            case {"object": "error", "message": str()}:
                return True
            case _:
                return False
    except (ValueError, RecursionError):
        return False
