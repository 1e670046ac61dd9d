"""Find calls whose arguments break the JSON Schema that their own tool states."""

from collections.abc import Mapping
from functools import lru_cache

from jsonschema_rs import Validator

from components import parameters
from components.curate import candidate as candidates
from components.curate.candidate import Candidate


def breaks_schema(candidate: Candidate) -> str | None:
    """Find the first argument that its tool's ``parameters`` forbid; give its place and why."""
    if not candidate.answer.calls or not candidate.tools:
        return None
    validators = _validators(candidate.tools_text)
    for call in candidate.answer.calls:
        validator = validators.get(call.name)
        problem = validator and parameters.problem(validator, call.arguments)
        if problem is not None:
            return f"{call.name}{problem}"
    return None


@lru_cache(maxsize=512)
def _validators(tools_text: str) -> Mapping[str, Validator]:
    """Compile the schemas of the tools that are offered together; the same come over and over."""
    tools, _ = candidates.read_tools(tools_text)
    return parameters.validators(tools)
