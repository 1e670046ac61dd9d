"""What the gateway says of a canary, and the evidence that it says so of."""

import json
from pathlib import Path
from typing import NoReturn

from components.extensions.canary import running_rollout, shared_rollouts
from components.extensions.canary.running_rollout import RolloutStatus
from components.extensions.canary.shared_rollouts import SharedEvidence
from components.schema import Json
from flows.settings import Settings

ROLLOUTS = "rollouts"  # the folder of canaries in `serve`
EVIDENCE = "evidence"  # in `serve`: copies of the evidence in the object store

DECIDING = frozenset({"hold", "undecided", "roll back", "void", "stopped"})
"""The states of a canary after which something has to be done about it."""


def rollout_file(home: Settings, workload: str) -> Path:
    """Return the file in which the gateway says how a workload's canary stands."""
    return home.serve / ROLLOUTS / f"{workload}.json"


def evidence_file(home: Settings, rollout_id: str) -> Path:
    """Return the file of a canary's evidence, which the gateway appends to.

    With an object store it is a copy of what all gateways have sent, until ``forget_evidence``.

    Raises:
        StoreError: The store can't be reached.
        DamagedObjectError: An object there is not evidence.
    """
    if home.store is None:
        return home.serve / ROLLOUTS / f"{rollout_id}.jsonl"
    copy = home.serve / EVIDENCE / f"{rollout_id}.jsonl"
    evidence = SharedEvidence(home.store, rollout_id, copy)
    with home.store.reaching(f"reading the evidence of the canary {rollout_id}"):
        while True:
            before = evidence.size
            evidence.exchange(is_sending=False)
            if evidence.size == before:
                return copy


def forget_evidence(home: Settings, rollout_id: str) -> None:
    """Delete the copy of evidence that ``evidence_file`` made, if it did; the store has it."""
    for path in (home.serve / EVIDENCE).glob(f"{rollout_id}.*"):
        path.unlink(missing_ok=True)


def read_rollout(
    home: Settings, workload: str, rollout_id: str | None = None
) -> RolloutStatus | None:
    """Return what the gateway last said of a canary; ``None`` if that is nothing, or not its form.

    It may be of an older canary: compare the id. With ``rollout_id`` it is what all gateways of an
    object store say, if the home has one.

    Raises:
        StoreError: The store can't be reached.
    """
    text = None
    if rollout_id is not None and home.store is not None:
        with home.store.reaching(f"reading how the canary of {workload} stands"):
            text = shared_rollouts.read_standing(home.store, rollout_id)
    try:
        text = rollout_file(home, workload).read_text() if text is None else text
        raw: Json = json.loads(text, parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError):
        return None
    return running_rollout.read_status(raw)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
