"""What releases read of an installation, and the ports that it hands in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.decide.approvers import Approver, Approving
from components.store.warehouse import Connection, Location


class UnreadableRulesError(Exception):
    """The workload's file can't be read, or has mistakes."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The warehouse and the folders of one home, who may decide there, and its trials.

    ``approving`` reads who may decide from a workload's file, ``None`` without a file, or raises
    ``UnreadableRulesError``. ``secret`` finds the secret of an approver's codes. ``trial_version``
    returns the version that proves itself on a workload's traffic; ``end_trial`` ends that, and
    takes the reason.
    """

    tables: Location
    has_warehouse: bool
    locks: Path
    keys: Path
    adapters: Path
    evidence: Path
    approving: Callable[[str], Approving | None]
    secret: Callable[[Approver], str | None]
    trial_version: Callable[[Connection, str], str | None]
    end_trial: Callable[[str, str], None]
