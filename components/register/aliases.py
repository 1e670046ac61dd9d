"""Which version of a workload's registered model is champion, challenger and previous.

``challenger`` is the version that a person is asked about; ``previous`` is where a rollback leads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from components.register import mlflow_api

CHAMPION, CHALLENGER, PREVIOUS = NAMES = ("champion", "challenger", "previous")


@dataclass(frozen=True, slots=True)
class Aliases:
    """The version number that each alias stands on; ``None`` where it stands on none."""

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None


def read(name: str) -> Aliases:
    """Read the aliases of a registered model; all are ``None`` before it is there."""
    found = mlflow_api.client().search_registered_models(f"name = '{name}'")
    return _standing(found[0].aliases) if found else Aliases()


def read_all() -> dict[str, Aliases]:
    """Read the aliases of all registered models, by name."""
    found = mlflow_api.client().search_registered_models()
    return {model.name: _standing(model.aliases) for model in found}


def _standing(numbers: Mapping[str, str]) -> Aliases:
    return Aliases(*(str(numbers[alias]) if alias in numbers else None for alias in NAMES))


def put(name: str, alias: str, number: str | None) -> None:
    """Put an alias on a version, or take it off where ``number`` is ``None``; safe to repeat."""
    if getattr(read(name), alias) == number:
        return
    client = mlflow_api.client()
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, number)


def take_off(name: str, alias: str, number: str) -> None:
    """Take an alias off a version, unless it stands on another one by now."""
    if getattr(read(name), alias) == number:
        put(name, alias, None)
