"""What releases read of an installation, and the lock of a workload's champion."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.decide.approvers import Approver, Approving
from components.store import file_locks, lock
from components.store.lock import WarehouseBusyError
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


@contextmanager
def lock_champion(
    path: Location, folder: Path, workload: str, *, wait: bool = True
) -> Generator[bool]:
    """Lock a workload's champion against changes; yield whether the lock was acquired.

    Args:
        path: The warehouse; where it is shared, other machines are locked out, too.
        folder: Folder of the locks, the same for all processes of a home.
        workload: The workload.
        wait: Whether to wait while another process holds the lock.
    """
    with ExitStack() as held:
        is_ours = held.enter_context(file_locks.held(folder / f"{workload}.lock", wait=wait))
        if is_ours and not isinstance(path, Path):
            seconds = lock.PATIENCE_SECONDS if wait else 0
            try:
                held.enter_context(path.alone(f"champion of {workload}", seconds))
            except WarehouseBusyError:
                if wait:
                    raise
                is_ours = False
        yield is_ours
