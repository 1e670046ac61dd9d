"""Object to tool calls that nothing could carry out."""

from components.curate.candidate import Candidate


def arguments_not_json(candidate: Candidate) -> str | None:
    """Object to calls whose arguments are no JSON object."""
    try:
        candidate.answer_json.encode()
    except (ValueError, RecursionError) as error:
        return type(error).__name__
    return None


def unknown_tool(candidate: Candidate) -> str | None:
    """Find calls of tools that the request did not offer; name the first."""
    called = (call.name for call in candidate.answer.calls)
    return next((name for name in called if name not in candidate.tool_names), None)
