"""Find a version of a workload's registered model by what a person calls it."""

from components.register import aliases, registry
from components.register.registry import Version
from flows.settings import Settings
from flows.stack import health


def require_mlflow(home: Settings, doing: str, otherwise: str = "") -> None:
    """Refuse to go on without MLflow.

    Args:
        home: Where it is.
        doing: What is refused.
        otherwise: What can be done without it.

    Raises:
        LookupError: It does not answer.
    """
    if not health.mlflow_answers(home):
        hint = f", and {otherwise}" if otherwise else ""
        raise LookupError(
            f"{doing} in MLflow: {home.mlflow_url} does not answer; {home.remedy}{hint}"
        )


def find(workload: str, said: str) -> Version:
    """Find a version by its number, or by its alias.

    Raises:
        LookupError: There is none.
    """
    if said.isdigit():
        return registry.numbered(workload, said)
    found = registry.aliased(workload, said)
    if found is None:
        raise LookupError(
            f"looking up the {said} of {workload}: it has none; wants a number, or one of "
            f"{', '.join(aliases.NAMES)}"
        )
    return found
