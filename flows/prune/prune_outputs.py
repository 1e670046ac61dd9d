"""Delete old outputs that nothing needs any more, here, at the servers and in the object store."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from components.erase import delete
from components.erase.affected_outputs import VERDICT, Output
from components.extensions.prune import unused_outputs
from components.extensions.prune.unused_outputs import FinishedOutput, Unused
from components.schema import WORKLOAD_ID
from components.store import file_locks, output_folders, warehouse, working_copy
from flows.erasing import erase, erase_servers
from flows.jobs import runner
from flows.prune import outputs_in_use
from flows.settings import Settings
from flows.stack import erased_copies


@dataclass(frozen=True, slots=True)
class PrunedKind:
    """How many outputs of a kind a prune deletes, and the bytes of their files."""

    kind: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Prunable:
    """What a prune deletes: outputs, and jobs by their names.

    ``under_way`` are the workloads that are left alone, because a turn, a training or an evaluation
    of them has not ended.
    """

    unused: Unused
    jobs: tuple[str, ...]
    under_way: frozenset[str]
    kinds: tuple[PrunedKind, ...] = ()


class PruneBusyError(RuntimeError):
    """A backup, an erasure or another prune needs the outputs as they are."""


def find_prunable(home: Settings, before: datetime) -> Prunable:
    """Find the outputs and jobs from before then that nothing needs; nothing is changed."""
    known = unused_outputs.read_finished(erase.outputs(home))
    return _measured(home, _find_prunable(home, known, before))


def prune(home: Settings, before: datetime, workload: str | None = None) -> Prunable:
    """Delete the outputs and jobs from before then that nothing needs; return what was deleted.

    ``workload`` limits it to one's; what can't be known to be of one stays then.

    Copies at the servers go first, and what others are made from last: after a kill an erasure
    finds a person in whatever is left, and the same again deletes it. Looks, seals and holdout
    versions stay in the warehouse.

    Raises:
        PruneBusyError: A backup, an erasure or another prune is under way.
    """
    with file_locks.held(home.home / erased_copies.BEING_PRUNED, wait=False) as is_ours:
        if not is_ours:
            raise PruneBusyError(
                f"pruning {home.home}: a backup, an erasure or another prune is under way; do the "
                "same again when it has ended"
            )
        known = unused_outputs.read_finished(erase.outputs(home))
        planned = _find_prunable(home, known, before, workload)
        workloads = {output.workload for output in planned.unused.outputs}
        with ExitStack() as stack:
            for name in sorted(workloads):  # else a curation could find what is deleted next
                stack.enter_context(working_copy.reserve(home.tables, home.locks, name))
            planned = _find_prunable(home, known, before, workload, workloads)
            planned = _measured(home, planned)
            with erased_copies.pruning(home, planned.unused.outputs):
                _delete(home, planned)
    return planned


def _find_prunable(
    home: Settings,
    known: Sequence[FinishedOutput],
    before: datetime,
    workload: str | None = None,
    reserved: Set[str] | None = None,
) -> Prunable:
    jobs = outputs_in_use.job_times(home)
    recent = [name for name, changed in jobs.items() if changed >= before]
    runs = outputs_in_use.runs_under_way() if erase_servers.has_prefect(home) else []
    in_use = outputs_in_use.read_in_use(home, runs, recent, before)
    under_way = in_use.workloads
    only = {workload} if workload is not None and reserved is None else reserved
    if only is not None:
        others = outputs_in_use.workloads_with_outputs(home) - only
        in_use = replace(in_use, workloads=under_way | others)
    unused = unused_outputs.find_unused(erase.outputs(home), known, in_use, before)
    old = [
        name
        for name in sorted(jobs.keys() - {*recent})
        if name.rpartition("-")[2] not in in_use.names | unused.begun
        and (workload is None or outputs_in_use.is_job_of(home, name, workload))
    ]
    elsewhere = (_unfinished_elsewhere(home, name) for name in old)
    also = [made for made in elsewhere if made and made.workload not in in_use.workloads]
    unfinished = tuple(dict.fromkeys([*unused.unfinished, *also]))
    return Prunable(replace(unused, unfinished=unfinished), tuple(old), under_way)


def _delete(home: Settings, planned: Prunable) -> None:
    outputs, unused = erase.outputs(home), planned.unused
    erase_servers.drop_copies(home, unused.outputs)
    if home.has_warehouse:
        with warehouse.connect(home.tables) as con, warehouse.transaction(con):
            delete.forget_outputs(con, unused.outputs)
    for output in unused.unfinished:
        output_folders.remove(outputs.root(output.kind) / output.workload / output.key)
    for output in unused.outputs:
        if output.kind == "adapter":
            _remove_stored(home, f"checkpoints/{output.workload}/{output.key}")
    for name in planned.jobs:
        with file_locks.held(home.jobs / name / runner.LOCK, wait=False) as is_ours:
            if is_ours:
                output_folders.forget(home.jobs / name)
                _remove_stored(home, f"jobs/{name}")
    unused_outputs.delete_unused(unused.finished)
    for output in unused.outputs:
        folder = outputs.root(output.kind) / output.workload / output.key
        _forget_versions(home, home.portable(folder))


def _remove_stored(home: Settings, place: str) -> None:
    if home.store:
        home.store.remove(place)
        _forget_versions(home, place)


def _forget_versions(home: Settings, place: str) -> None:
    if home.store:
        with suppress(OSError):  # not allowed: the certificate of an erasure names what is left
            home.store.forget_versions(f"{place}/")


def _unfinished_elsewhere(home: Settings, job: str) -> Output | None:
    """Return the adapter that a job of any machine began and never finished."""
    text = home.read(home.jobs / job / "spec.json") if job.startswith("train-") else None
    if home.store is None or text is None:
        return None
    match json.loads(text):
        case {"folder": str(path)}:
            output = Output("adapter", Path(path).parent.name, Path(path).name)
        case _:
            return None
    # Who may write to the store names no other folder.
    if not unused_outputs.KEY.fullmatch(output.key) or not re.match(WORKLOAD_ID, output.workload):
        return None
    place = home.adapters / output.workload / output.key
    return output if output_folders.read_record(place) is None else None


def _measured(home: Settings, planned: Prunable) -> Prunable:
    outputs, sizes = erase.outputs(home), defaultdict[str, list[int]](list)
    for each in planned.unused.finished:
        kept = VERDICT if each.output.kind == "evidence" else ""
        sizes[each.output.kind].append(_size(home, each.folder, kept))
    for output in planned.unused.unfinished:
        folder = outputs.root(output.kind) / output.workload / output.key
        if folder.exists():  # else another machine may have it
            sizes["unfinished"].append(_size(home, folder))
    for name in planned.jobs:
        sizes["job"].append(_size(home, home.jobs / name))
    kinds = tuple(PrunedKind(kind, len(each), sum(each)) for kind, each in sizes.items())
    return replace(planned, kinds=kinds)


def _size(home: Settings, folder: Path, leaving_out: str = "") -> int:
    """Return the bytes of a folder's files here, or of its objects where only the store has it."""
    if folder.exists() or home.store is None:
        return unused_outputs.size(folder, leaving_out)
    return sum(home.store.sizes(home.portable(folder)).values())
