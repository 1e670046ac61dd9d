"""Object to tool calls that nothing could carry out."""

from components.curate.candidate import Candidate


def arguments_not_json(candidate: Candidate) -> str | None:
    """Object to calls whose arguments are no JSON object."""
    try:
        candidate.answer().to_json().encode()
    except (ValueError, RecursionError):
        return "arguments_not_json"
    return None


def unknown_tool(candidate: Candidate) -> str | None:
    """Object to calls of tools that the request did not offer."""
    called = {call.name for call in candidate.answer().calls}
    return "unknown_tool" if called - set(candidate.tool_names) else None
