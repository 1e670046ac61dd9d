"""Which MLflow accounts may change a workload's registered model, beside the workers' own.

Whoever creates a registered model owns it, also one with the name of a later workload.
"""

from http import HTTPStatus

import httpx

from components.register import mlflow_api

OWNING = frozenset({"EDIT", "MANAGE"})  # permissions by which an alias or a version can be changed

KINDS = frozenset({"registered_model", "prompt"})  # they share their names

UNKNOWN = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
"""Answers of a server that shows its accounts to admins only, or has none."""


def owners(name: str) -> list[str]:
    """Return the accounts, but for admins, that may change a model or a prompt of this name.

    Empty where the server has no accounts, or this one may not list them.
    """
    server = mlflow_api.rest("/api/2.0/mlflow")
    if server is None:
        return []
    try:
        users = server.get("/users/list")["users"]
    except httpx.HTTPStatusError as error:
        if error.response.status_code in UNKNOWN:
            return []
        raise
    return sorted(
        user["username"]
        for user in users
        if not user["is_admin"]
        and any(
            granted["resource_pattern"] == name
            and granted["resource_type"] in KINDS
            and granted["permission"] in OWNING
            for role in user.get("roles", [])
            for granted in role["permissions"]
        )
    )


def owners_note(name: str) -> str:
    """Return a clause for an error about a model that others may have changed; may be empty."""
    accounts = " and ".join(owners(name))
    return f"; {accounts} may change {name} in MLflow: {remedy(accounts)}" if accounts else ""


def remedy(accounts: str) -> str:
    """Return how the operator takes a model from accounts."""
    return (
        f"`flywheel account remove` takes that from {accounts}, and `account add` makes an account "
        "again, without it; then delete in MLflow what they made of this name"
    )
