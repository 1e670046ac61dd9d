"""A home as what releases read of an installation."""

from functools import partial

from components.decide.approvers import Approver, Approving
from components.release.installation import Installation, UnreadableRulesError
from flows import approver_keys, home_workloads, trials, workload_file
from flows.approver_keys import SecretError
from flows.home_workloads import WorkloadFileError
from flows.settings import Settings
from flows.workload_file import WorkloadError


def of(home: Settings) -> Installation:
    """Return what releases read of a home."""
    return Installation(
        tables=home.tables,
        has_warehouse=home.has_warehouse,
        locks=home.locks,
        keys=home.keys,
        adapters=home.adapters,
        evidence=home.evidence,
        approving=partial(_approving, home),
        secret=partial(_secret, home),
        trial_version=lambda con, workload: trials.find().trial_version(con, workload),
        end_trial=lambda workload, why: trials.find().end(home, workload, why),
    )


def _approving(home: Settings, workload: str) -> Approving | None:
    try:
        file = home_workloads.find(home, workload)
        return workload_file.read_workload(file).approve if file else None
    except (WorkloadError, WorkloadFileError) as error:
        raise UnreadableRulesError from error


def _secret(home: Settings, approver: Approver) -> str | None:
    try:
        return approver_keys.find_secret(home, approver)
    except SecretError:
        return None
