"""Find calls whose arguments break the JSON Schema that their own tool states."""

from collections.abc import Mapping
from functools import lru_cache

from jsonschema_rs import Validator

from components import parameters
from components.curate import candidate as candidates
from components.curate.candidate import Candidate

MOST_WORK = 10**10
"""Characters of the schemas times those of the calls: each value may be held against each keyword.
The library can't be interrupted; this takes it some seconds."""


class SchemaWorkError(ValueError):
    """Schemas and calls that are too large to be held against each other."""


def breaks_schema(candidate: Candidate) -> str | None:
    """Find the first argument that its tool's ``parameters`` forbid; give its place and why.

    Raises:
        SchemaWorkError: Tools and calls are too large together.
    """
    if not candidate.answer.calls or not candidate.tools:
        return None
    work = len(candidate.tools_text) * len(candidate.answer_json)
    if work > MOST_WORK:
        raise SchemaWorkError(f"{work:,} steps, wants at most {MOST_WORK:,}")
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
