"""Which version of a workload's registered model is champion, challenger and previous.

``challenger`` is the version that a person is asked about; ``previous`` is where a rollback leads.
"""

from dataclasses import dataclass

CHAMPION, CHALLENGER, PREVIOUS = NAMES = ("champion", "challenger", "previous")


@dataclass(frozen=True, slots=True)
class Aliases:
    """The version number that each alias stands on; ``None`` where it stands on none."""

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None


def read(name: str) -> Aliases:
    """Read the aliases of a registered model; all are ``None`` before it is there."""
    from mlflow import MlflowClient

    found = MlflowClient().search_registered_models(f"name = '{name}'")
    numbers = {alias: str(number) for one in found for alias, number in one.aliases.items()}
    return Aliases(*(numbers.get(alias) for alias in NAMES))


def put(name: str, alias: str, number: str | None) -> None:
    """Put an alias on a version, or take it off where ``number`` is ``None``; safe to repeat."""
    from mlflow import MlflowClient

    if getattr(read(name), alias) == number:
        return
    client = MlflowClient()
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, number)


def take_off(name: str, alias: str, number: str) -> None:
    """Take an alias off a version, unless it stands on another one by now."""
    if getattr(read(name), alias) == number:
        put(name, alias, None)
